"""The customer's commands to one recording: told to the worker there is, and kept for those to come."""

import asyncio
import logging
from pathlib import Path
from typing import Final

from recorder.agent.events import EventLog
from recorder.agent.images import Images
from recorder.agent.node import Node
from recorder.agent.ownership import Ownership
from recorder.agent.reports import Reports
from recorder.agent.supervisor import COMMAND_SECONDS, Supervisor
from recorder.peer import PeerLost
from recorder.protocol import Done, ImageReady, Message, Refused, RenewStorage, SaveSpace, SetLayout, Stop, Subscribe, Warned
from recorder.spec import RecordingSpec

log = logging.getLogger(__name__)

DISK_FILLS_UP: Final = 10090  # warnCode; a number of ours


class Commands:
    """`obey()` takes them as they come; `brief()` tells each worker that connects what it cannot know."""

    def __init__(
        self,
        sid: str,
        node: Node,
        folder: Path,
        *,
        events: EventLog,
        ownership: Ownership,
        supervisor: Supervisor,
        reports: Reports,
    ) -> None:
        """`folder` is the recording's, for the images that layouts name."""
        self.images = Images(folder, node.images.fetch, tell=self._hand_over, emit=events.emit)
        self._emit = events.emit
        self._sid = sid
        self._ownership = ownership
        self._supervisor = supervisor
        self._reports = reports
        self._launched: RecordingSpec | None = None  # with which the worker was started; None: what it knows is uncertain
        self._saving = False  # as the disk of the spool demands
        self._saving_changed = asyncio.Event()
        self._arrived = asyncio.Event()  # a worker, that is not briefed yet
        self._turn = asyncio.Lock()  # of who tells the worker what to record, so that the last word is the newest

    def launching(self, spec: RecordingSpec | None) -> None:
        """A worker is started that knows `spec`."""
        self._launched = spec

    def worker_arrived(self) -> None:
        self._arrived.set()

    async def obey(self, message: Stop | Subscribe | SetLayout | RenewStorage) -> Message:
        """A command of the customer's. What changes the recording also holds for the workers to come."""
        if isinstance(message, RenewStorage):  # files are uploaded after the end, too
            return await self._ownership.renew_storage(moves=message.moves)
        if self._reports.ended is not None or self._supervisor.stopping:
            return Refused(reason="exiting")
        if isinstance(message, Stop):
            self._supervisor.stop(message.reason)
            return Done()
        async with self._turn:
            if isinstance(message, SetLayout):  # what is there already shows from the layout's first picture on
                await self.images.give(message.layout)
            answer = await self._tell(message)
            if isinstance(answer, Refused):
                return answer
            changed = {"subscription": message.subscription} if isinstance(message, Subscribe) else {"layout": message.layout}
            self._ownership.change(changed)
            self._launched = None
            self.want_images()
        return Done()

    async def brief(self) -> None:
        """Tell each worker that connects what was changed after its start, then the images."""
        while True:
            await self._arrived.wait()
            await self._ownership.claimed.wait()
            self._arrived.clear()
            async with self._turn:
                assert self._ownership.spec
                known, spec = self._launched, self._ownership.spec
                if spec.mode == "mix" and (known is None or known.layout != spec.layout):
                    await self._tell(SetLayout(sid=self._sid, layout=spec.layout))
                if known is None or known.subscription != spec.subscription:
                    await self._tell(Subscribe(sid=self._sid, subscription=spec.subscription))
                if self._saving:
                    await self._tell(SaveSpace(on=True))
            self.images.worker_is_here()

    def save_space(self, on: bool) -> None:  # as the message
        """Have this recording take less of the disk, or as much as usual again."""
        if on != self._saving:
            self._saving = on
            self._saving_changed.set()

    async def tell_to_save(self) -> None:
        """Tell it to the worker there is, whenever it changes; `brief` tells the next one."""
        while True:
            await self._saving_changed.wait()
            self._saving_changed.clear()
            await self._tell(SaveSpace(on=self._saving))
            if self._saving:
                await self._emit(Warned(module=0, code=DISK_FILLS_UP, detail="the disk of the spool fills up, less is recorded"))

    async def _tell(self, message: Subscribe | SetLayout | SaveSpace) -> Message | None:
        """The worker's answer; None when there is none: it, or the next one, is told when it connects."""
        try:
            return await self._supervisor.link.request(message, COMMAND_SECONDS)
        except (PeerLost, TimeoutError):
            log.warning("a command does not reach the worker, the next one will have it", extra={"type": message.type})
            return None

    def want_images(self) -> None:
        """Have the images fetched that the layout names."""
        spec = self._ownership.spec
        if spec and spec.mode == "mix" and spec.video:
            self.images.want(spec.layout, spec.canvas)

    async def _hand_over(self, image: ImageReady) -> None:
        """Tell the worker that an image is there; the next worker is told anew."""
        try:
            answer = await self._supervisor.link.request(image, COMMAND_SECONDS)
        except (PeerLost, TimeoutError):
            log.warning("an image does not reach the worker")
        else:
            if isinstance(answer, Refused):
                log.error("the worker cannot use an image", extra={"detail": answer.detail})
