"""A live channel with a bad network in it, recorded by a worker: hub, publishers and worker are real processes."""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

from recorder.protocol import FileOpened
from recorder.spec import Canvas, Layout, RecordingSpec
from recorder.tools import measure
from tests.impair.impairment import Conditions
from tests.impair.proxy import ImpairedHub
from tests.live import TestedWorker, hub, publisher, settings
from tests.viewer import Heard, Seen, listen, watch

Leg = Literal["publisher", "recorder"]  # which way is bad: publisher → hub, or hub → recorder

UID = 101
_SID = "c0ffee" * 5 + "00"
_CANVAS = Canvas(width=640, height=360, fps=30, bitrate_kbps=1000)
_TILES = {3: (measure.Rect(0, 0, 320, 180), measure.Rect(320, 0, 320, 180), measure.Rect(0, 180, 320, 180))}  # of best fit
LENGTH_TOLERANCE_SECONDS = 0.3
_STREAMS_TOLERANCE_SECONDS = 0.1  # sound against picture, at the end


@dataclasses.dataclass(frozen=True, slots=True)
class Recording:
    """A finished recording. Times are seconds from its first picture."""

    seen: dict[int, Seen]
    expected_seconds: float  # by the wall clock: from the first picture to the request to stop
    marks: dict[str, float]


class LiveRoom:
    def __init__(self, network: ImpairedHub, worker: TestedWorker, folder: Path, uids: tuple[int, ...], *, live: bool) -> None:
        self.network = network
        self.worker = worker
        self._folder = folder
        self._uids = uids
        self._live = live
        self._marks: dict[str, float] = {}

    def mark(self, name: str) -> None:
        """Remember this moment; the recording knows it by its own time."""
        self._marks[name] = time.time()

    async def finish(self) -> Recording:
        """Stop the worker and watch what it recorded, whole."""
        whole, started, stopped = await self._recorded()
        tiles = _TILES.get(len(self._uids), (None,))
        seen = await asyncio.to_thread(watch, whole, tuple(zip(self._uids, tiles, strict=True)), live=self._live)
        return Recording(seen, stopped - started, {name: at - started for name, at in self._marks.items()})

    async def finish_sound(self) -> tuple[Heard, float]:
        """The same of a recording of sound alone, and how long it should be."""
        whole, started, stopped = await self._recorded()
        return await asyncio.to_thread(listen, whole, self._uids[0]), stopped - started

    async def _recorded(self) -> tuple[Path, float, float]:
        """Stop the worker; what it recorded, in one file, and from when to when."""
        stopped = time.time()
        await self.worker.stop()
        ended = self.worker.ended
        assert ended is not None
        assert (ended.outcome, ended.reason) == ("complete", "stopped")
        slices = self.worker.playlist(f"{_SID}_room.m3u8")
        started = slices[0].start_ms / 1000
        whole = self._folder / "whole.ts"
        whole.write_bytes(b"".join((self.worker.folder / "files" / item.name).read_bytes() for item in slices))
        assert measure.decode_errors([whole]) == []
        return whole, started, stopped


@contextlib.asynccontextmanager
async def live_room(
    folder: Path,
    *,
    leg: Leg | None,
    seed: int,
    uids: tuple[int, ...] = (UID,),
    live: bool = True,
    video: bool = True,
    media: Conditions | None = None,
    feedback: Conditions | None = None,
) -> AsyncIterator[LiveRoom]:
    """From when the recording's first file is open.

    `leg` None: all of the network is good. `live`: publishers encode while they send, and make keyframes only when they are asked for one.
    Without `video` nobody sends any, and none is recorded.
    """
    print(f"seed {seed}")
    at = settings(folder, slice_seconds=4)
    spec = RecordingSpec(
        sid=_SID,
        app_id="app",
        channel="room",
        uid=900,
        mode="mix",
        canvas=_CANVAS,
        layout=Layout(number=1),
        max_idle_seconds=120,
        video=video,
    )
    options = (*(("--live",) if live else ()), *(() if video else ("--video", "none")))
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(hub(at))
        network = await stack.enter_async_context(ImpairedHub(url, seed=seed, media=media, feedback=feedback).running())
        for uid in uids:
            address = network.url if leg == "publisher" else url
            await stack.enter_async_context(publisher(address, uid, *options))
        if leg == "recorder":
            at = at.model_copy(update={"agent": at.agent.model_copy(update={"hub_url": network.url})})
        worker = await stack.enter_async_context(TestedWorker(at, spec).running())
        await worker.until(lambda: any(isinstance(report.body, FileOpened) for report in worker.reports), 30)
        yield LiveRoom(network, worker, folder, uids, live=live)


def check_whole(recording: Recording, uid: int = UID) -> Seen:
    """What holds for every recording, whatever the network did: exact length, right order, sound as long as the picture."""
    seen = recording.seen[uid]
    assert abs(seen.length - recording.expected_seconds) <= LENGTH_TOLERANCE_SECONDS
    assert abs(seen.sound_length - seen.length) <= _STREAMS_TOLERANCE_SECONDS
    assert seen.backward_steps == 0
    return seen
