"""What happened in one recording: numbered, durable before it counts, delivered in order and at least once."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from recorder.frames import Kind
from recorder.protocol import (
    BackupDone,
    Claimed,
    Event,
    EventBody,
    FileOpened,
    Finished,
    PlaylistPublished,
    Refused,
    Slice,
    SliceCommitted,
    SliceStored,
    StreamChanged,
    TrackBegan,
    UploaderStarted,
    WorkerLost,
)
from storage.errors import SpoolError
from storage.journal import Journal, Record


@dataclass(slots=True)
class History:
    """A recording as the agent's journal tells it."""

    epoch: int | None = None
    began_ms: int | None = None  # Unix ms of the first event
    next_sequence: int = 0
    pending: deque[Event] = field(default_factory=deque)
    bodies: list[EventBody] = field(default_factory=list)
    finished_ms: int | None = None  # when `Finished` was told; Unix ms
    worker: tuple[int, str] | None = None  # the last one's pid and identity

    @property
    def slices(self) -> list[Slice]:
        return [body.slice for body in self.bodies if isinstance(body, SliceCommitted)]

    @property
    def files(self) -> set[str]:
        return {body.file.name for body in self.bodies if isinstance(body, FileOpened)}

    @property
    def stored(self) -> set[str]:
        """Files in the customer's store."""
        return {name for name, backup in self._copies().items() if not backup}

    @property
    def backed_up(self) -> set[str]:
        """Files that are in the backup store alone."""
        return {name for name, backup in self._copies().items() if backup}

    def _copies(self) -> dict[str, bool]:
        return {body.name: body.backup for body in self.bodies if isinstance(body, SliceStored)}

    @property
    def finished(self) -> Finished | None:
        return next((body for body in self.bodies if isinstance(body, Finished)), None)

    @property
    def closed(self) -> bool:
        """Nothing is left to be brought to the customer's store."""
        finished = self.finished
        return finished is not None and (not finished.leaves_behind or any(isinstance(body, BackupDone) for body in self.bodies))

    @property
    def published(self) -> set[str]:
        """Playlists that the customer was told of."""
        return {body.name for body in self.bodies if isinstance(body, PlaylistPublished)}

    @property
    def uploader_started(self) -> bool:
        return any(isinstance(body, UploaderStarted) for body in self.bodies)

    @property
    def began(self) -> set[tuple[int, str]]:
        """Epoch and playlist of every track that was begun."""
        return {(body.epoch, body.playlist) for body in self.bodies if isinstance(body, TrackBegan)}

    @property
    def streams(self) -> dict[tuple[int, int, Kind], StreamChanged]:
        """What was told last of each stream of each epoch's worker."""
        return {(body.epoch, body.uid, body.kind): body for body in self.bodies if isinstance(body, StreamChanged)}

    @property
    def restarts(self) -> int:
        return sum(isinstance(body, WorkerLost) for body in self.bodies)


def restore(records: Iterable[Record]) -> History:
    """Read the agent's journal of one recording."""
    history = History()
    acknowledged = (-1, -1)
    for record in records:
        match record["type"]:
            case "epoch":
                history.epoch, history.next_sequence, history.worker = record["epoch"], 0, None
            case "worker":
                history.worker = record["pid"], record["identity"]
            case "event":
                event = Event.model_validate(record)
                if history.epoch is None or event.epoch > history.epoch:  # the line that tells of it is damaged
                    history.epoch, history.worker = event.epoch, None
                history.began_ms = history.began_ms or event.at_ms
                history.bodies.append(event.body)
                if isinstance(event.body, Finished):
                    history.finished_ms = event.at_ms
                history.pending.append(event)
                history.next_sequence = event.sequence + 1
            case "delivered":
                acknowledged = record["epoch"], record["sequence"]
                if acknowledged[0] == history.epoch:  # the line of the event itself may be damaged
                    history.next_sequence = max(history.next_sequence, acknowledged[1] + 1)
    history.pending = deque(event for event in history.pending if (event.epoch, event.sequence) > acknowledged)
    return history


class EventLog:
    """The events of one recording, in the agent's journal and on their way."""

    def __init__(self, sid: str, journal: Journal, history: History, *, noted: Callable[[EventBody], object] = lambda _body: None) -> None:
        """`noted` hears everything that has happened, from the beginning on."""
        self._noted = noted
        for body in history.bodies:
            noted(body)
        self._sid = sid
        self._journal = journal
        self._epoch = history.epoch
        self._sequence = history.next_sequence
        self._pending = deque(history.pending)
        self._lock = asyncio.Lock()  # one writer; also held while the epoch changes
        self._arrived = asyncio.Event()
        self._flushed = asyncio.Event()
        (self._arrived if self._pending else self._flushed).set()

    @property
    def epoch(self) -> int | None:
        return self._epoch

    @property
    def all_delivered(self) -> bool:
        return not self._pending

    async def emit(self, body: EventBody, at_ms: int | None = None) -> None:
        """Number `body` and make it durable; it is delivered in the background.

        Raises:
            SpoolError: the journal cannot be written.
        """
        async with self._lock:
            event = self._numbered(body, at_ms)
            await asyncio.to_thread(self._journal.append, event.model_dump(mode="json"))
            self._queue(event)

    async def emit_unsaved(self, body: EventBody) -> None:
        """As `emit`, for what must be told although the journal fails."""
        async with self._lock:
            self._queue(self._numbered(body, None))

    async def note_worker(self, pid: int, identity: str) -> None:
        """Remember the worker for a later life of this agent."""
        await asyncio.to_thread(self._journal.append, {"type": "worker", "pid": pid, "identity": identity})

    async def claim(self, ask: Callable[[], Awaitable[Claimed | Refused]]) -> Claimed | Refused:
        """Ask for a new epoch, with nothing of the old one left to deliver: the control plane ignores what comes late."""
        while True:
            await self._flushed.wait()
            async with self._lock:
                if self._pending:
                    continue
                answer = await ask()
                if isinstance(answer, Claimed):
                    await asyncio.to_thread(self._journal.append, {"type": "epoch", "epoch": answer.epoch})
                    self._epoch, self._sequence = answer.epoch, 0
                return answer

    async def run(self, deliver: Callable[[Event], Awaitable[None]]) -> None:
        """Deliver for ever."""
        while True:
            await self._arrived.wait()
            event = self._pending[0]
            await deliver(event)
            # Not forced to disk: losing the line means delivering again. Nor may a disk that fails keep back what comes after.
            with contextlib.suppress(SpoolError):
                self._journal.append({"type": "delivered", "epoch": event.epoch, "sequence": event.sequence}, durable=False)
            self._pending.popleft()
            if not self._pending:
                self._arrived.clear()
                self._flushed.set()

    async def flushed(self) -> None:
        """Wait until everything is delivered."""
        await self._flushed.wait()

    def _numbered(self, body: EventBody, at_ms: int | None) -> Event:
        assert self._epoch is not None, "nothing happens before the claim"
        return Event(sid=self._sid, epoch=self._epoch, sequence=self._sequence, at_ms=at_ms or time.time_ns() // 1_000_000, body=body)

    def _queue(self, event: Event) -> None:
        self._sequence = event.sequence + 1
        self._pending.append(event)
        self._noted(event.body)
        self._flushed.clear()
        self._arrived.set()
