"""Who is recorded of those in a channel, whose media is received for it, and when nobody is there."""

import pytest

from recorder.channels import ChannelError
from recorder.frames import Kind, Track
from recorder.spec import MOST_HEARD, MOST_SEEN, RecordingSpec, Subscription, UidRule
from recorder.worker.audience import Audience
from recorder.worker.pipeline import Input, Started, Stopped

NOBODY = UidRule(kind="none")


def only(*uids: int) -> UidRule:
    return UidRule(kind="only", uids=frozenset(uids))


def _never(error: ChannelError) -> None:
    raise error


class Room:
    """An audience, what it hands on and whose media it wants."""

    def __init__(self, **changes: object) -> None:
        spec = RecordingSpec(sid="a" * 32, app_id="app", channel="room", uid=900, mode="individual").model_copy(update=changes)
        self.inputs: list[Input] = []
        self.received: list[Subscription] = []
        self.audience = Audience(spec, self, receive=self.received.append, on_lost=_never)

    def put(self, item: Input) -> None:
        self.inputs.append(item)

    def joins(self, *uids: int, host: bool = True) -> None:
        for uid in uids:
            self.audience.participant_joined(uid, host=host)
            if host:
                self.audience.track_started(Track(uid, "audio"))
                self.audience.track_started(Track(uid, "video"))

    def leaves(self, uid: int) -> None:
        self.audience.track_stopped(Track(uid, "audio"))
        self.audience.track_stopped(Track(uid, "video"))
        self.audience.participant_left(uid)

    def recorded(self, kind: Kind) -> set[int]:
        """Whose tracks have been started and not stopped."""
        uids: set[int] = set()
        for item in self.inputs:
            if isinstance(item, Started | Stopped) and item.track.kind == kind:
                uids = uids | {item.track.uid} if isinstance(item, Started) else uids - {item.track.uid}
        return uids


@pytest.mark.parametrize(("mode", "most_heard", "most_seen"), [("individual", MOST_HEARD, MOST_SEEN), ("mix", MOST_HEARD, MOST_HEARD)])
def test_of_a_crowd_the_first_are_recorded_and_the_next_moves_up(mode: str, most_heard: int, most_seen: int) -> None:
    room = Room(mode=mode)
    people = [*range(200, 260)]
    room.joins(*people)
    assert room.recorded("audio") == set(people[:most_heard])
    assert room.recorded("video") == set(people[:most_seen])
    assert room.audience.received == Subscription(audio=only(*people[:most_heard]), video=only(*people[:most_seen]))
    assert room.received[-1] == room.audience.received
    room.leaves(200)
    assert room.recorded("audio") == set(people[1 : most_heard + 1])
    assert room.recorded("video") == set(people[1 : most_seen + 1])
    assert room.received[-1] == Subscription(audio=only(*people[1 : most_heard + 1]), video=only(*people[1 : most_seen + 1]))


def test_only_those_who_are_subscribed_to_count_for_the_crowd() -> None:
    room = Room(subscription=Subscription(video=UidRule(kind="except", uids=frozenset({200}))))
    people = [*range(200, 201 + MOST_SEEN)]
    room.joins(*people)
    assert room.recorded("video") == set(people[1:])
    assert room.received == []  # the rule itself says it


def test_people_who_cannot_send_take_nobodys_place() -> None:
    room = Room()
    room.joins(*range(1, 100), host=False)
    room.joins(200)
    assert room.recorded("audio") == room.recorded("video") == {200}


def test_an_update_stops_and_starts_tracks_and_is_received() -> None:
    room = Room()
    room.joins(101, 102)
    wanted = Subscription(audio=only(102), video=NOBODY)
    room.audience.subscribe(wanted)
    assert (room.recorded("audio"), room.recorded("video")) == ({102}, set())
    assert wanted in room.inputs
    assert room.received == [wanted]
    room.audience.subscribe(Subscription())
    assert room.recorded("audio") == room.recorded("video") == {101, 102}
    assert room.received == [wanted, Subscription()]


@pytest.mark.parametrize(("audio", "video"), [(True, False), (False, True)])
def test_a_kind_that_is_not_recorded_is_not_received(audio: bool, video: bool) -> None:
    room = Room(audio=audio, video=video)
    everybody = Subscription(audio=UidRule() if audio else NOBODY, video=UidRule() if video else NOBODY)
    assert room.audience.received == everybody
    room.audience.subscribe(Subscription(audio=only(101), video=only(101)))
    assert room.received == [Subscription(audio=only(101) if audio else NOBODY, video=only(101) if video else NOBODY)]


@pytest.mark.parametrize(
    ("live", "host", "idle"),
    [(False, True, False), (False, False, False), (True, True, False), (True, False, True)],
)
def test_who_keeps_a_recording_from_being_idle(live: bool, host: bool, idle: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a communication channel everybody, silent or not; in a live broadcast its hosts."""
    now = 100.0
    monkeypatch.setattr("recorder.worker.audience.time.monotonic", lambda: now)  # its only clock
    room = Room(live_broadcast=live, subscription=Subscription(audio=NOBODY, video=NOBODY))
    now = 103.0
    assert room.audience.idle_seconds() == 3
    room.audience.participant_joined(101, host=host)
    now = 110.0
    assert room.audience.idle_seconds() == (10 if idle else 0)
    room.audience.participant_left(101)
    now = 114.0
    assert room.audience.idle_seconds() == (14 if idle else 4)


def test_a_live_broadcast_is_idle_when_its_last_host_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("recorder.worker.audience.time.monotonic", lambda: now)  # its only clock
    room = Room(live_broadcast=True)
    room.audience.participant_joined(101, host=True)
    room.audience.participant_joined(102, host=False)
    room.audience.participant_joined(103, host=True)
    room.audience.participant_left(101)
    now = 120.0
    assert room.audience.idle_seconds() == 0
    room.audience.participant_left(103)
    now = 125.0
    assert room.audience.idle_seconds() == 5
