"""What the workers of one recording have done, by their reports and by their journal: each thing is passed on once."""

import asyncio
import logging
from collections.abc import Iterable

from pydantic import ValidationError

from recorder.agent.events import EventLog, History
from recorder.agent.supervisor import Supervisor
from recorder.agent.uploads import Uploads
from recorder.outputs import salvage
from recorder.protocol import (
    Done,
    Ended,
    EventBody,
    FileOpened,
    Message,
    Metered,
    PhaseChanged,
    Refused,
    Report,
    Slice,
    SliceCommitted,
    Warned,
)
from storage.errors import SpoolError
from storage.journal import Record
from storage.spool import RecordingSpool

log = logging.getLogger(__name__)


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
        self._read = 0  # records of the worker's journal seen so far

    async def hear(self, report: Report) -> Message:
        """Something happened in the worker; answered when it is durable."""
        try:
            await self.take(report.body, report.at_ms)
        except SpoolError as error:
            if not self.failure.done():
                self.failure.set_exception(error)
            return Refused(reason="exiting")
        return Done()

    async def take(self, body: EventBody, at_ms: int | None) -> None:
        """Pass on what is new; a worker repeats itself after a reconnect, and its journal repeats it again."""
        match body:
            case SliceCommitted(slice=committed):
                if committed.name in self._slices:
                    return
                self._slices.add(committed.name)
                await self._events.emit(body, at_ms)
                self._uploads.add(committed)
                return
            case FileOpened(file=file):
                if file.name in self._files:
                    return
                self._files.add(file.name)
            case Ended(reason=reason):
                asked = self._supervisor.stopping
                if self.ended is not None or (reason == "shutdown" and not asked):
                    return  # the worker was ended, or left alone for too long: that is not the end of the recording
                if reason == "shutdown" and asked:  # SIGTERM is a rung of the ladder
                    body = body.model_copy(update={"reason": asked})
                self.ended = body
            case Metered():
                if body == self._metered:
                    return
                self._metered = body
            case PhaseChanged() | Warned():
                pass
            case _:
                log.warning("a worker reports what is not its business", extra={"type": body.type})
                return
        await self._events.emit(body, at_ms)
        if isinstance(body, Ended):
            self._supervisor.worker_is_over()

    async def recover(self) -> None:
        """Take over what the worker had no time to commit, or to report."""
        await asyncio.to_thread(salvage.salvage_slices, RecordingSpool(self._spool.folder))
        records = await asyncio.to_thread(self._spool.records)
        for body in _bodies(records[self._read :]):
            await self.take(body, None)
        self._read = len(records)


def _bodies(records: Iterable[Record]) -> Iterable[EventBody]:
    """The worker's journal as the reports it stands for."""
    for record in records:
        try:
            match record.get("type"):
                case "slice":
                    yield SliceCommitted(slice=Slice.model_validate(record))
                case "file":
                    yield FileOpened.model_validate(record)
                case "usage":
                    yield Metered.model_validate(record)
                case "ended":
                    yield Ended.model_validate(record)
        except ValidationError:
            log.exception("a record of the worker's journal makes no sense")
