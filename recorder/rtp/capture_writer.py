"""Writes a capture while the recording runs. It never hurts the recording: it is bounded, and ends when it cannot be written.

The event loop only queues; files are written by a thread of its own, so that a slow disk delays nobody.
"""

import logging
import os
import struct
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from recorder.frames import EncodedFrame, Kind
from recorder.rtp import rtpdump
from recorder.rtp.capture import DESCRIPTION, Description, Essentials, Happening, Session
from recorder.rtp.receiver import Route, SessionReceiver
from recorder.spec import RecordingSpec

log = logging.getLogger(__name__)

FLUSH_SECONDS = 0.25
CLOSE_SECONDS = 5.0  # a disk that takes longer keeps the rest
WAITING_LIMIT_BYTES = 32 << 20  # received and not yet written: some minutes of one picture, seconds of nine large ones
_HAPPENING_BYTES = 100  # of each happening in the description, about


class CaptureWriter:
    def __init__(self, folder: Path, spec: RecordingSpec, *, zero_ns: int, zero_utc_ns: int, jitter_ms: int, limit_bytes: int) -> None:
        """`folder` must not exist yet; `zero_ns` is the timeline's zero on the monotonic clock."""
        self._folder = folder
        self._zero_ns = zero_ns
        self._limit_bytes = limit_bytes
        self._head = rtpdump.head(zero_utc_ns)
        self._description = Description(zero_utc_ns=zero_utc_ns, jitter_ms=jitter_ms, recording=Essentials.of(spec))
        self._sessions: list[Session] = []
        self._happenings: list[Happening] = []
        self._waiting: deque[tuple[int, rtpdump.Arrival]] = deque()
        self._begun: set[int] = set()  # sessions whose file has its head
        self._bytes = 0  # of packets taken so far
        self._written_bytes = 0
        self._changed = True
        self._over = False
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._thread.start()

    def receiver(  # the constructor's parameters
        self,
        uid: int,
        *,
        routes: dict[int, Route],
        retransmissions: dict[int, int],
        orientation_id: int = 0,
        on_frame: Callable[[EncodedFrame], None],
        patience_ns: int,
        zero_ns: int,
    ) -> SessionReceiver:
        """A `SessionReceiver` whose packets are captured."""
        receiver = _CapturedReceiver(
            uid,
            routes=routes,
            retransmissions=retransmissions,
            orientation_id=orientation_id,
            on_frame=on_frame,
            patience_ns=patience_ns,
            zero_ns=zero_ns,
        )
        number = len(self._sessions)
        session = Session(
            uid=uid, file=f"{number + 1}-{uid}.rtpdump", routes=routes, retransmissions=retransmissions, orientation_id=orientation_id
        )
        self._sessions.append(session)
        self._changed = True
        receiver.capture_into(self, number)
        return receiver

    def take(self, number: int, data: bytes, arrival_ns: int, *, rtcp: bool) -> None:
        """A packet of session `number`; `arrival_ns` is of the monotonic clock."""
        if self._over or len(data) > rtpdump.LONGEST_PACKET:
            return
        self._bytes += len(data)
        self._waiting.append((number, rtpdump.Arrival(arrival_ns - self._zero_ns, data, rtcp)))
        self._check_bounds()

    def session_ended(self, number: int, at_ns: int) -> None:
        """What the session still held has been handed over."""
        if not self._over:
            self._sessions[number] = self._sessions[number].model_copy(update={"ended_ns": at_ns - self._zero_ns})
            self._changed = True

    def participant_joined(self, uid: int, at_ns: int, *, host: bool) -> None:
        self._note(Happening(at_ns=at_ns - self._zero_ns, what="joined", uid=uid, host=host))

    def participant_left(self, uid: int, at_ns: int) -> None:
        self._note(Happening(at_ns=at_ns - self._zero_ns, what="left", uid=uid))

    def track_started(self, uid: int, kind: Kind, at_ns: int) -> None:
        self._note(Happening(at_ns=at_ns - self._zero_ns, what="started", uid=uid, kind=kind))

    def track_stopped(self, uid: int, kind: Kind, at_ns: int) -> None:
        self._note(Happening(at_ns=at_ns - self._zero_ns, what="stopped", uid=uid, kind=kind))

    def close(self, at_ns: int) -> None:
        """Write what is waiting and end. Blocks, but not for long."""
        if not self._over:
            self._description = self._description.model_copy(update={"ended_ns": at_ns - self._zero_ns})
            self._over = self._changed = True
        self._ending.set()
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            log.warning("capture not written to its end, the disk is too slow")

    # ---- inside: the event loop's side -------------------------------------------------------------------------------

    def _note(self, happening: Happening) -> None:
        if self._over:
            return
        self._happenings.append(happening)
        self._changed = True
        self._check_bounds()

    def _check_bounds(self) -> None:
        if self._bytes + len(self._happenings) * _HAPPENING_BYTES > self._limit_bytes:
            self._give_up("capture ended, it has reached its limit; the recording goes on")
        elif self._bytes - self._written_bytes > WAITING_LIMIT_BYTES:
            self._give_up("capture ended, the disk is too slow for it; the recording goes on")

    def _give_up(self, why: str) -> None:
        log.warning(why, extra={"megabytes": self._bytes >> 20})
        self._description = self._description.model_copy(update={"complete": False})
        self._over = self._changed = True
        self._ending.set()

    # ---- inside: the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.mkdir(mode=0o700)
            ending = False
            while not ending:
                ending = self._ending.wait(FLUSH_SECONDS)  # before the queue is looked at: nothing is queued after it
                self._write_packets()
                if self._changed:
                    self._changed = False
                    self._describe()
        except (OSError, struct.error) as error:  # struct.error: a recording of more than 49 days
            self._over = True
            self._waiting.clear()
            log.warning("capture ended, it cannot be written; the recording goes on", extra={"error": str(error)})

    def _write_packets(self) -> None:
        parts: dict[int, list[bytes]] = {}
        size = 0
        for _ in range(len(self._waiting)):
            number, arrival = self._waiting.popleft()
            parts.setdefault(number, []).append(rtpdump.record(arrival))
            size += len(arrival.data)
        for number, records in parts.items():
            if number not in self._begun:
                self._begun.add(number)
                records.insert(0, self._head)
            self._append(self._folder / self._sessions[number].file, b"".join(records))
        self._written_bytes += size

    def _describe(self) -> None:
        description = self._description.model_copy(update={"sessions": tuple(self._sessions), "happenings": tuple(self._happenings)})
        beside = self._folder / f".{DESCRIPTION}"
        beside.unlink(missing_ok=True)
        self._append(beside, description.model_dump_json(indent=1).encode() + b"\n")
        beside.replace(self._folder / DESCRIPTION)

    @staticmethod
    def _append(path: Path, data: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb") as file:  # noqa: PTH123  # a descriptor, not a path
            file.write(data)


class _CapturedReceiver(SessionReceiver):
    """Sees every packet before the receiver takes it: nothing that the receiver drops is missing in the capture."""

    def capture_into(self, writer: CaptureWriter, number: int) -> None:
        self._writer = writer
        self._number = number
        self._newest_ns: int | None = None

    def packet(self, data: bytes, arrival_ns: int) -> None:
        self._newest_ns = arrival_ns
        self._writer.take(self._number, data, arrival_ns, rtcp=False)
        super().packet(data, arrival_ns)

    def control(self, data: bytes, arrival_ns: int) -> None:
        self._writer.take(self._number, data, arrival_ns, rtcp=True)
        super().control(data, arrival_ns)

    def tick(self, now_ns: int) -> list[bytes]:
        self._newest_ns = now_ns
        return super().tick(now_ns)

    def flush(self) -> None:
        if self._newest_ns is not None:
            self._writer.session_ended(self._number, self._newest_ns)
        super().flush()
