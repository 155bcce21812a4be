"""Plays a capture: what arrived goes through the same receivers again, and what a connector would tell is told.

Owns no clock: `advance` is given the time, real or virtual. Feedback to senders (NACK, PLI, reports) is made and thrown away.
"""

import heapq
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from recorder.frames import EncodedFrame, Track
from recorder.media.timeline import SenderClock
from recorder.rtp.capture import Capture, Happening
from recorder.rtp.following import reading_seconds
from recorder.rtp.receiver import Counters, SessionReceiver
from recorder.rtp.turns import Turns
from recorder.spec import Subscription

_LEAST_PAUSE_NS = 20_000_000  # between the last packet of a turn and the first of the next, where no period is known


class Hears(Protocol):
    """What a channel's listener hears of a replay."""

    def participant_joined(self, uid: int, *, host: bool) -> None: ...

    def participant_left(self, uid: int) -> None: ...

    def track_started(self, track: Track) -> None: ...

    def track_stopped(self, track: Track) -> None: ...

    def frame(self, frame: EncodedFrame) -> None: ...


class _Step(NamedTuple):
    """A packet, the end of a session (no data), or a happening (session -1)."""

    at_ns: int
    session: int
    data: bytes | None = None
    rtcp: bool = False
    happening: Happening | None = None


class Player:
    """Plays a capture once, or in a loop for ever.

    A capture with a period goes on without a seam: sequence numbers, timestamps and sender reports continue. Any other begins anew
    as if every sender had restarted: its streams get other SSRCs.

    Receivers have their turns when a connector's have: at each of its rounds, and sooner where a packet is missing.
    """

    def __init__(
        self,
        capture: Capture,
        hears: Hears,
        *,
        patience_ns: int,
        pictures: bool = True,
        start_ns: int | None = None,
        loop: bool = False,
    ) -> None:
        """`pictures`: they are recorded, not sound alone. `start_ns`: when the first step comes, on the timeline; None: when it came in
        the captured recording."""
        description = capture.description
        self._capture = capture
        self._sessions = description.sessions
        self._hears = hears
        self._patience_ns = patience_ns
        self._turns = [Turns(session, description.period_ns) for session in description.sessions]
        self._receivers: dict[int, SessionReceiver] = {}
        self._clocks: dict[int, SenderClock] = {}  # by uid, until it leaves
        self._deaf: list[frozenset[int]] = [frozenset()] * len(self._sessions)  # payload types that are not subscribed to
        self._people: dict[int, bool] = {}
        self._tracks: set[Track] = set()
        self._staying: tuple[frozenset[int], frozenset[Track]] | None = None  # who was there when the first packet came
        self._steps = self._all_steps(start_ns, loop)
        self._step = next(self._steps, None)
        self._tick_ns = self._step.at_ns if self._step else 0
        self._round_seconds = reading_seconds(patience_ns / 1_000_000, pictures=pictures)
        self.counters: list[tuple[int, Counters]] = []  # of every receiver so far, with its uid

    def subscribe(self, wanted: Subscription) -> None:
        """Replace whose packets are taken."""
        for number, session in enumerate(self._sessions):
            admitted = {"audio": wanted.audio.admits(session.uid), "video": wanted.video.admits(session.uid)}
            deaf = {payload_type for payload_type, route in session.routes.items() if not admitted[route.kind]}
            deaf |= {repeat for repeat, repeated in session.retransmissions.items() if repeated in deaf}
            self._deaf[number] = frozenset(deaf)

    def next_ns(self) -> int | None:
        """When there is something to do again; None: the capture is over."""
        return min(self._step.at_ns, self._tick_ns) if self._step else None

    def advance(self, now_ns: int) -> None:
        """Do everything up to this time, each thing as of its own time."""
        while self._step and self._step.at_ns <= now_ns:
            self._tick(self._step.at_ns)
            self._play(self._step)
            self._step = next(self._steps, None)
        self._tick(now_ns)

    def flush(self) -> None:
        """Hand over what the receivers still hold."""
        for receiver in self._receivers.values():
            receiver.flush()
        self._receivers.clear()

    # ---- inside ----

    def _tick(self, now_ns: int) -> None:
        while self._tick_ns <= now_ns:
            for receiver in self._receivers.values():
                receiver.tick(self._tick_ns)
            soonest = min((receiver.next_tick_seconds for receiver in self._receivers.values()), default=math.inf)
            self._tick_ns += round(min(self._round_seconds, soonest) * 1e9)

    def _play(self, step: _Step) -> None:
        if step.happening:
            self._happen(step.happening)
        elif step.data is None:
            receiver = self._receivers.pop(step.session, None)
            if receiver:
                receiver.flush()
        else:
            if self._staying is None:
                self._staying = frozenset(self._people), frozenset(self._tracks)
            receiver = self._receivers.get(step.session) or self._receiver(step.session)
            if step.rtcp:
                receiver.control(step.data, step.at_ns)
            elif len(step.data) < 2 or step.data[1] & 0x7F not in self._deaf[step.session]:
                receiver.packet(step.data, step.at_ns)

    def _receiver(self, number: int) -> SessionReceiver:
        session = self._sessions[number]
        receiver = self._receivers[number] = SessionReceiver(
            session.uid,
            routes=dict(session.routes),
            retransmissions=dict(session.retransmissions),
            orientation_id=session.orientation_id,
            on_frame=self._hears.frame,
            patience_ns=self._patience_ns,
            zero_ns=0,
        )
        receiver.sender = self._clocks.setdefault(session.uid, receiver.sender)
        self.counters.append((session.uid, receiver.counters))
        return receiver

    # ---- inside: who is there ----

    def _happen(self, happening: Happening) -> None:
        """Tell it, unless an earlier turn has: a capture that is played in a loop repeats itself."""
        uid, kind = happening.uid, happening.kind
        if happening.what == "joined" and uid not in self._people:
            self._people[uid] = happening.host
            self._hears.participant_joined(uid, host=happening.host)
        elif happening.what == "left" and uid in self._people:
            del self._people[uid]
            self._clocks.pop(uid, None)
            self._hears.participant_left(uid)
        elif kind and happening.what == "started" and (track := Track(uid, kind)) not in self._tracks:
            self._tracks.add(track)
            self._hears.track_started(track)
        elif kind and happening.what == "stopped" and (track := Track(uid, kind)) in self._tracks:
            self._tracks.discard(track)
            self._hears.track_stopped(track)

    def _leavings(self, at_ns: int) -> Iterator[_Step]:
        """At the end of a turn: whoever was not there from its beginning goes."""
        people, tracks = self._staying or (frozenset(), frozenset())
        for track in sorted(self._tracks - tracks, key=lambda track: (track.uid, track.kind)):
            yield _Step(at_ns, -1, happening=Happening(at_ns=at_ns, what="stopped", uid=track.uid, kind=track.kind))
        for uid in [uid for uid in self._people if uid not in people]:
            yield _Step(at_ns, -1, happening=Happening(at_ns=at_ns, what="left", uid=uid))

    # ---- inside: the order of things ----

    def _all_steps(self, start_ns: int | None, loop: bool) -> Iterator[_Step]:
        begins_ns = self._begins_ns()
        if begins_ns is None:
            return
        first_shift_ns = shift_ns = 0 if start_ns is None else start_ns - begins_ns
        period_ns = self._capture.description.period_ns
        for turn in itertools.count():
            last_ns = begins_ns + shift_ns
            for step in self._one_turn(turn, shift_ns, shift_ns - first_shift_ns):
                last_ns = step.at_ns
                yield step
            if not loop:
                return
            yield from self._leavings(last_ns)
            shift_ns = shift_ns + period_ns if period_ns else last_ns + _LEAST_PAUSE_NS - begins_ns

    def _begins_ns(self) -> int | None:
        """When the first step of the captured recording came; None: there is none."""
        times = [happening.at_ns for happening in self._capture.description.happenings[:1]]
        for session in self._sessions:
            times += [arrival.at_ns for arrival in itertools.islice(self._capture.arrivals(session), 1)]
        return min(times, default=None)

    def _one_turn(self, turn: int, shift_ns: int, moved_ns: int) -> Iterator[_Step]:
        packets = [self._packets(number, turn, shift_ns, moved_ns) for number in range(len(self._sessions))]
        return heapq.merge(self._happenings(shift_ns), *packets, key=lambda step: step.at_ns)

    def _happenings(self, shift_ns: int) -> Iterator[_Step]:
        for happening in self._capture.description.happenings:
            yield _Step(happening.at_ns + shift_ns, -1, happening=happening)

    def _packets(self, number: int, turn: int, shift_ns: int, moved_ns: int) -> Iterator[_Step]:
        """The steps of one session; `moved_ns` is how much later than in the first turn they come."""
        session, turns = self._sessions[number], self._turns[number]
        at_ns = 0
        for at_ns, data, rtcp in self._capture.arrivals(session):
            if turn:
                yield _Step(at_ns + shift_ns, number, turns.later(data, turn, moved_ns, rtcp=rtcp), rtcp)
            else:
                turns.learn(data, rtcp=rtcp)
                yield _Step(at_ns + shift_ns, number, data, rtcp)
        if session.ended_ns is not None:
            yield _Step(max(at_ns, session.ended_ns) + shift_ns, number)
