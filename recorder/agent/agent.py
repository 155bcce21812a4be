"""One node: takes offers, listens for its workers, and takes up after a restart what its former life was working on."""

import asyncio
import contextlib
import logging
import socket
import struct
import time
from collections.abc import AsyncIterator
from typing import Final

from pydantic import ValidationError

from recorder.agent import retention
from recorder.agent.bus import LocalBus
from recorder.agent.capacity import LOOK_SECONDS, Capacity
from recorder.agent.disk import Disk
from recorder.agent.images import ImageHelpers
from recorder.agent.machine import Machine
from recorder.agent.node import Node
from recorder.agent.process import Launcher
from recorder.agent.recording import Recording, SpoolFailed
from recorder.agent.supervisor import Timing
from recorder.outbound import AddressPolicy
from recorder.peer import LINE_LIMIT_BYTES, Peer
from recorder.protocol import AgentHello, Done, Load, Message, Offer, Refused, RenewStorage, Report, SetLayout, Stop, Subscribe, WorkerHello
from recorder.settings import ConfigError, Settings
from storage.errors import SpoolError
from storage.evacuation import evacuate
from storage.pace import Pace
from storage.spool import RecordingSpool, Spool

log = logging.getLogger(__name__)

_DRAIN_POLL_SECONDS: Final = 0.05


class Agent:
    """`run()` works until `drain()` is called and everything has ended, or the time for that is over."""

    def __init__(
        self, settings: Settings, *, launcher: Launcher | None = None, timing: Timing | None = None, images: ImageHelpers | None = None
    ) -> None:
        """
        Raises:
            ConfigError: a network that customers' hosts may be in is none, or the second spool cannot be used.
        """
        try:
            AddressPolicy(settings.agent.allowed_networks)
        except ValueError as error:  # found at the first upload, it would lose the recording
            raise ConfigError(f"agent.allowed_networks: {error}") from error
        self._settings = settings
        self._timing = timing or Timing(lease=settings.recording.lease_seconds)
        self._spool = Spool(settings.spool_dir)
        try:
            self._second = Spool(settings.agent.second_spool) if settings.agent.second_spool else None
        except OSError as error:
            raise ConfigError(f"agent.second_spool: {error.strerror}") from error
        self._bus = LocalBus(settings.control_socket, self._hello, self._handle)
        images = images or ImageHelpers(settings.agent.allowed_networks)
        megabits = settings.agent.upload_megabits
        pace = Pace(megabits * 1_000_000 / 8 if megabits else None)
        self._capacity = Capacity(settings.agent, Machine(), free_spool_bytes=self._spool.free_bytes)
        self._recordings: dict[str, Recording] = {}
        self._disk = Disk(self._spool, lambda: [one for one in self._recordings.values() if not one.stopping])
        self._node = Node(settings, self._bus, launcher or Launcher(), self._timing, images, self._disk, pace, self._second)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._draining = asyncio.Event()
        self._group: asyncio.TaskGroup

    async def run(self) -> None:
        """
        Raises:
            SpoolError: another agent uses the spool, or it is spread over disks.
        """
        with contextlib.ExitStack() as locked:
            for spool in (self._spool, self._second):
                if spool:
                    spool.lock()
                    locked.callback(spool.unlock)
            self._node.launcher.warm()
            async with asyncio.TaskGroup() as group, self._workers(group):
                self._group = group
                self._take_up()
                serving = [group.create_task(work) for work in (self._bus.run(), self._measure(), self._disk.watch(), self._forget())]
                await self._draining.wait()
                await self._drain()
                for task in (*serving, *self._tasks.values()):
                    task.cancel()

    def drain(self) -> None:
        """Take no more recordings, have the workers end theirs, finish uploads, end."""
        self._draining.set()

    # ---- recordings ----------------------------------------------------------------------------------------------

    def _take_up(self) -> None:
        """Go on with what the spool holds."""
        spools = [spool for spool in (self._spool, self._second) if spool]  # what is in both was moved to the second
        there = {sid: spool for spool in spools for sid in spool.recordings()}
        for sid, spool in there.items():
            try:
                recording = Recording(sid, self._node, spool.recording(sid))
            except (ValueError, KeyError, SpoolError):  # another version's journal, or a broken disk
                log.exception("a recording in the spool cannot be read, it is left alone", extra={"sid": sid})
                continue
            if recording.settled:
                recording.tidy()
            elif recording.claimed_before:
                self._start(recording)
            elif spool.recording(sid).holds_media:
                log.error("media of a recording that is unknown here stays in the spool", extra={"sid": sid})
            else:  # the crash came before the claim was answered
                spool.recording(sid).destroy()

    def _start(self, recording: Recording) -> None:
        self._recordings[recording.sid] = recording
        self._tasks[recording.sid] = self._group.create_task(self._run(recording))

    async def _run(self, recording: Recording) -> None:
        moved = None
        try:
            await recording.run()
        except SpoolFailed:
            moved = await self._move(recording)
        finally:
            del self._recordings[recording.sid], self._tasks[recording.sid]
        if moved:
            self._start(moved)

    async def _move(self, recording: Recording) -> Recording | None:
        """Take a recording whose spool fails to the second one; there it goes on as after a restart of the agent."""
        assert self._second
        log.error("the spool fails, the recording goes on in the second one", extra={"sid": recording.sid})
        try:
            moved = Recording(recording.sid, self._node, await asyncio.to_thread(evacuate, recording.folder, self._second, recording.seal))
        except (OSError, SpoolError):
            log.exception("the second spool fails, too", extra={"sid": recording.sid})
            await recording.give_up()
            return None
        self._spool.set_aside(recording.sid)
        if recording.told_to_stop:
            moved.stop(recording.told_to_stop)
        return moved

    async def _drain(self) -> None:
        log.info("draining", extra={"recordings": len(self._recordings)})
        for recording in self._recordings.values():
            recording.stop("shutdown")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timing.drain):
                while not self._drained():  # noqa: ASYNC110  # several things end it, and nobody tells of all
                    await asyncio.sleep(_DRAIN_POLL_SECONDS)
        if self._recordings:
            log.warning("not everything is uploaded and told, the next start goes on", extra={"recordings": len(self._recordings)})

    def _drained(self) -> bool:
        """Nothing is left to do. Without a control plane that is also what waits for one: it may have died with the service.

        What waits for a customer's store is taken up at the next start.
        """
        busy = [one for one in self._recordings.values() if not one.resting]
        return not busy or (not self._bus.connected and all(one.waits_for_control for one in busy))

    async def _measure(self) -> None:
        while True:
            self._capacity.look(self._live())
            await asyncio.sleep(LOOK_SECONDS)

    async def _forget(self) -> None:
        """Remove what was kept for long enough."""
        keep_days = self._settings.agent.keep_days
        while True:
            for spool in filter(None, (self._spool, self._second)):
                try:
                    await asyncio.to_thread(retention.forget, spool, tuple(self._recordings), keep_days=keep_days, now=time.time)
                except OSError:
                    log.exception("the spool cannot be looked through")
            await asyncio.sleep(retention.LOOK_SECONDS)

    def _live(self) -> dict[str, int | None]:
        """Who records, and in which process."""
        return {sid: recording.worker_pid for sid, recording in self._recordings.items() if not recording.over}

    def _offered(self, sid: str, load: Load) -> Message:
        if sid in self._recordings:
            return Done()
        lacking = "the node is draining" if self._draining.is_set() else self._disk.refuses or self._capacity.lacks(load, self._live())
        if lacking:
            return Refused(reason="no_capacity", detail=lacking)
        try:
            spool = self._room(sid)
        except ValueError:
            return Refused(reason="bad_request")
        if spool is None:
            return Refused(reason="no_capacity", detail="the spool fails")
        self._start(Recording(sid, self._node, spool))
        self._capacity.take(sid, load)
        return Done()

    def _room(self, sid: str) -> RecordingSpool | None:
        """A folder for the recording; None: no spool works."""
        for spool in (self._spool, self._second):
            try:
                if spool:
                    return spool.recording(sid)
            except OSError as error:
                log.error("the spool fails", extra={"error": str(error)})  # noqa: TRY400  # the text says it all
        return None

    # ---- the control plane ---------------------------------------------------------------------------------------

    def _hello(self) -> AgentHello:
        return AgentHello(node=self._settings.agent.node, live=tuple(sid for sid, one in self._recordings.items() if not one.resting))

    async def _handle(self, message: Message) -> Message:
        match message:
            case Offer(sid=sid, load=load):
                return self._offered(sid, load)
            case Stop(sid=sid) | Subscribe(sid=sid) | SetLayout(sid=sid) | RenewStorage(sid=sid):
                recording = self._recordings.get(sid)
                return await recording.command(message) if recording else Refused(reason="not_yours")
            case _:
                return Refused(reason="bad_request", detail=f"{message.type} is not expected here")

    # ---- workers -------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _workers(self, group: asyncio.TaskGroup) -> AsyncIterator[None]:
        """Listen for workers during the block; in the end their connections are closed."""
        tasks: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = group.create_task(self._serve_worker(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_unix_server(accept, self._settings.agent_socket, limit=LINE_LIMIT_BYTES)
        self._settings.agent_socket.chmod(0o600)
        try:
            yield
        finally:
            server.close()
            for task in tasks:
                task.cancel()

    async def _serve_worker(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: hello first, then reports."""
        recording: Recording | None = None

        async def handle(message: Message) -> Message:
            nonlocal recording
            match message:
                case WorkerHello() if recording is None:
                    found = self._recordings.get(message.sid)
                    if found is None:
                        return Refused(reason="unknown")
                    if _peer_pid(writer) not in (None, message.pid):
                        return Refused(reason="bad_request", detail="another process's pid")
                    answer = await found.worker_hello(message, peer)
                    if isinstance(answer, Done):
                        recording = found
                    return answer
                case Report() if recording:
                    return await recording.report(message)
                case _:
                    return Refused(reason="bad_request", detail=f"{message.type} is not expected here")

        peer = Peer(reader, writer, handle)
        try:
            await peer.run()
        except* (ValidationError, ValueError) as errors:
            log.error("a worker sent what is no message", extra={"errors": len(errors.exceptions)})  # noqa: TRY400  # they quote it
        except* OSError as errors:
            log.warning("a worker's connection broke", extra={"error": str(errors.exceptions[0])})
        finally:
            if recording:
                recording.worker_gone(peer)


def _peer_pid(writer: asyncio.StreamWriter) -> int | None:
    """The process at the other end, by the kernel's word; None where it does not say."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    connection: socket.socket = writer.get_extra_info("socket")
    pid: int = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i")))[0]
    return pid
