"""The workers of one recording, one after the other: started, adopted after the agent's restart, replaced when they die."""

import asyncio
import logging
import signal
from collections.abc import Callable
from typing import Final, Literal

from recorder.agent.events import EventLog, History
from recorder.agent.node import Node
from recorder.agent.ownership import Abandoned, Ownership
from recorder.agent.process import WorkerProcess
from recorder.agent.reports import Reports
from recorder.agent.supervisor import Supervisor
from recorder.agent.uploads import Uploads
from recorder.outputs import salvage
from recorder.protocol import Ended, WorkerLost
from recorder.spec import RecordingSpec
from recorder.worker.launch import Launch
from storage.spool import RecordingSpool

log = logging.getLogger(__name__)

LONGEST_PAUSE_SECONDS: Final = 8.0
SALVAGE_SECONDS: Final = 120.0
SALVAGE_BYTES_PER_SECOND: Final = 10_000_000  # of a slow disk, which reads and writes it


class Workers:
    """`record()` is the life of the recording as long as media comes; `salvage()` finishes what the last one left."""

    def __init__(
        self,
        node: Node,
        spool: RecordingSpool,
        history: History,
        *,
        events: EventLog,
        ownership: Ownership,
        supervisor: Supervisor,
        reports: Reports,
        uploads: Uploads,
        launching: Callable[[RecordingSpec | None], object],
    ) -> None:
        """`launching` hears with which specification a worker is started."""
        self.begun = asyncio.Event()  # the first worker of this life is there, or cannot be
        self.waits_for_key = False  # which a control plane gives
        self._node = node
        self._spool = spool
        self._events = events
        self._ownership = ownership
        self._supervisor = supervisor
        self._reports = reports
        self._uploads = uploads
        self._launching = launching
        self._resumed = history.epoch is not None
        self._worker = history.worker
        self._restarts = history.restarts
        self._process: WorkerProcess | None = None  # the last one

    async def kill(self) -> None:
        """See to it that no worker writes any more."""
        if self._process:
            self._process.send(signal.SIGKILL)
            await self._process.wait()

    async def record(self) -> Ended:
        """One worker after the other, until one ends by itself, is told to, or too many have died."""
        process = await self._adopt() if self._resumed else await self._spawn()
        self.begun.set()
        seconds = self._node.timing.lease if self._resumed else self._node.timing.hello
        while True:
            how = "it is not there"
            self._process = process
            if process:
                how = await self._supervisor.attend(process, seconds)
            await self._key_known()
            await self._reports.recover()
            ended = self._reports.ended or await self._go_on(how)
            if ended:
                return ended
            process = await self._spawn()
            seconds = self._node.timing.hello

    async def _key_known(self) -> None:
        """After the agent's restart: what a worker left open is committed sealed, and the control plane has the key."""
        if self._spool.sealed:
            self.waits_for_key = not self._ownership.claimed.is_set()
            await self._ownership.claimed.wait()
            self.waits_for_key = False

    async def _go_on(self, how: str) -> Ended | None:
        """A worker is gone without an end: None when another one shall continue, else how the recording ends."""
        self._node.disk.look()  # a full disk kills workers, and would the next one
        ended = self._stopped(how)
        if ended:
            return ended
        self._restarts += 1
        log.error("worker lost", extra={"how": how, "restarts": self._restarts})
        await self._events.emit(WorkerLost(detail=how))
        if self._restarts > self._node.settings.recording.max_restarts:
            return Ended(outcome="failed" if self._uploads.empty else "interrupted", reason="crashed", detail=how)
        # The first one is replaced at once; one that dies at each start must not keep the node busy.
        pause = 0.0 if self._restarts == 1 else min(LONGEST_PAUSE_SECONDS, 2.0 ** (self._restarts - 2))
        await self._supervisor.stopped_within(pause)
        await self._ownership.claimed.wait()
        try:
            if not self._supervisor.stopping:
                await self._ownership.claim()
        except Abandoned as refused:
            return Ended(outcome="interrupted", reason="stopped", detail=f"not started again: {refused}")
        return self._stopped(how)

    def _stopped(self, how: str) -> Ended | None:
        reason = self._supervisor.stopping
        return Ended(outcome="interrupted", reason=reason, detail=f"worker: {how}") if reason else None

    async def _spawn(self) -> WorkerProcess | None:
        if self._supervisor.stopping:
            return None
        self._launching(self._ownership.spec)
        process = await self._start("record")
        if process:
            log.info("worker started", extra={"pid": process.pid, "epoch": self._events.epoch})
            await self._events.note_worker(process.pid, process.identity)
        return process

    async def _start(self, task: Literal["record", "salvage"]) -> WorkerProcess | None:
        assert self._ownership.spec
        assert self._events.epoch is not None
        launch = Launch(
            spec_json=self._ownership.spec.for_worker().with_secrets(),
            settings=self._node.settings,
            epoch=self._events.epoch,
            folder=self._spool.folder.absolute(),
            task=task,
        )
        try:
            return await self._node.launcher.start(launch)
        except (OSError, EOFError):
            log.exception("a worker could not be started", extra={"task": task})
            return None

    async def _adopt(self) -> WorkerProcess | None:
        """The worker of a former life. It has its lease to find us; one whose pid was never noted must do so first."""
        if self._worker:
            return WorkerProcess.find(*self._worker)
        if await self._supervisor.link.attached(self._node.timing.lease) and self._supervisor.link.pid:
            return WorkerProcess.find(self._supervisor.link.pid)
        return None

    async def salvage(self) -> int:
        """Have the MP4 parts finished that the last worker left open; a worker that goes on does so with those before it.

        Returns how many could not be; they stay in the spool.
        """
        open_parts = await asyncio.to_thread(salvage.parts, self._spool)
        if not open_parts:
            return 0
        size = sum(salvage.open_bytes(self._spool, item) for item in open_parts)
        process = await self._start("salvage")
        if process:
            try:
                async with asyncio.timeout(SALVAGE_SECONDS + size / SALVAGE_BYTES_PER_SECOND):
                    await process.wait()
            except TimeoutError:
                log.exception("open MP4 parts are not finished in time")
            finally:
                process.send(signal.SIGKILL)
                await process.wait()
        await self._reports.recover()
        return len(await asyncio.to_thread(salvage.parts, self._spool))
