"""What the workers of one recording have done, by their reports and by their journal: each thing is passed on once."""

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import TypeVar

from pydantic import ValidationError

from recorder.agent.events import EventLog, History
from recorder.agent.supervisor import Supervisor
from recorder.agent.uploads import Uploads
from recorder.outputs import salvage
from recorder.protocol import (
    Done,
    Ended,
    EventBody,
    Faulted,
    FileOpened,
    Message,
    Metered,
    PhaseChanged,
    Refused,
    Report,
    Slice,
    SliceCommitted,
    StreamChanged,
    TrackBegan,
    Warned,
    WorkerFenced,
)
from storage.errors import SpoolError
from storage.journal import Record
from storage.spool import RecordingSpool

log = logging.getLogger(__name__)

_Item = TypeVar("_Item")


class Reports:
    """Takes them one by one; `ended` is how the recording ended, once a worker has said so."""

    def __init__(self, spool: RecordingSpool, history: History, events: EventLog, uploads: Uploads, supervisor: Supervisor) -> None:
        self.ended = next((body for body in history.bodies if isinstance(body, Ended)), None)
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # met by a message of the worker
        self._spool = spool
        self._events = events
        self._uploads = uploads
        self._supervisor = supervisor
        self._files = history.files
        self._slices = {known.name for known in history.slices}
        self._metered: Metered | None = None  # as told last
        self._began = history.began
        self._streams = history.streams
        self._read = 0  # records of the worker's journal seen so far

    async def hear(self, report: Report) -> Message:
        """Something happened in the worker; answered when it is durable."""
        try:
            await self.take(report.body, report.at_ms)
        except SpoolError as error:
            self._fail(error)
            return Refused(reason="exiting")
        return Done()

    async def fenced(self, epoch: int) -> None:
        """A worker of another epoch has come, and was turned away."""
        try:
            await self._events.emit(WorkerFenced(epoch=epoch))
        except SpoolError as error:
            self._fail(error)

    def _fail(self, error: SpoolError) -> None:
        if not self.failure.done():
            self.failure.set_exception(error)

    async def take(self, body: EventBody, at_ms: int | None) -> None:
        """Pass on what is new; a worker repeats itself after a reconnect, and its journal repeats it again."""
        if isinstance(body, Ended):
            await self._take_end(body, at_ms)
        elif self._is_new(body):
            await self._events.emit(body, at_ms)
            if isinstance(body, SliceCommitted):
                self._uploads.add(body.slice)

    async def _take_end(self, body: Ended, at_ms: int | None) -> None:
        asked = self._supervisor.stopping
        if self.ended is not None or (body.reason == "shutdown" and not asked):
            return  # the worker was ended, or left alone for too long: that is not the end of the recording
        if body.reason == "shutdown" and asked:  # SIGTERM is a rung of the ladder
            body = body.model_copy(update={"reason": asked})
        self.ended = body
        await self._events.emit(body, at_ms)
        self._supervisor.worker_is_over()

    def _is_new(self, body: EventBody) -> bool:
        new = True
        match body:
            case SliceCommitted(slice=committed):
                new = _add(self._slices, committed.name)
            case FileOpened(file=file):
                new = _add(self._files, file.name)
            case TrackBegan(epoch=epoch, playlist=playlist):
                new = _add(self._began, (epoch, playlist))
            case StreamChanged(epoch=epoch, uid=uid, kind=kind, receiving=receiving):
                told = self._streams.get((epoch, uid, kind))
                new = receiving != (told is not None and told.receiving)
                self._streams[epoch, uid, kind] = body
            case Metered():
                new = body != self._metered
                self._metered = body
            case PhaseChanged() | Warned() | Faulted():
                pass
            case _:
                log.warning("a worker reports what is not its business", extra={"type": body.type})
                new = False
        return new

    async def recover(self) -> None:
        """Take over what a worker that is gone had no time to commit, or to report."""
        await self._end_streams()
        await asyncio.to_thread(salvage.salvage_slices, RecordingSpool(self._spool.folder, self._spool.seal))
        records = await asyncio.to_thread(self._spool.records)
        for body in _bodies(records[self._read :]):
            await self.take(body, None)
        self._read = len(records)

    async def _end_streams(self) -> None:
        """What it received nobody receives any more."""
        at_ms = time.time_ns() // 1_000_000
        for body in [body for body in self._streams.values() if body.receiving]:
            await self.take(body.model_copy(update={"receiving": False, "at_ms": at_ms}), at_ms)


def _add(known: set[_Item], item: _Item) -> bool:
    """Whether it was not known."""
    if item in known:
        return False
    known.add(item)
    return True


def _bodies(records: Iterable[Record]) -> Iterable[EventBody]:
    """The worker's journal as the reports it stands for."""
    for record in records:
        try:
            match record.get("type"):
                case "slice":
                    yield SliceCommitted(slice=Slice.model_validate(record))
                case "file":
                    yield FileOpened.model_validate(record)
                case "began":
                    yield TrackBegan.model_validate(record)
                case "usage":
                    yield Metered.model_validate(record)
                case "ended":
                    yield Ended.model_validate(record)
        except ValidationError:
            log.exception("a record of the worker's journal makes no sense")
