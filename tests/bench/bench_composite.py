"""Composite recording: CPU of one recording against the codecs' own share of it."""

import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mixer import layouts
from mixer.canvas import Canvas
from mixer.compositor import Compositor
from recorder.media.decode import AudioDecoder, VideoDecoder
from recorder.media.encode import AudioEncoder, VideoEncoder
from recorder.media.pictures import frame_of, picture_of
from recorder.media.scale import Scaler
from recorder.protocol import FileOpened
from recorder.spec import Canvas as CanvasSpec
from recorder.spec import Layout, RecordingSpec
from recorder.tools.content import Style
from recorder.tools.publish_media import Library
from tests.bench import Result
from tests.live import ROOT, TestedWorker, hub, publisher, settings

ROUNDS = 5
WARM_SECONDS = 3
MEASURED_SECONDS = 10
PEOPLE = 9
FPS = 15
BITRATE_KBPS = 500
FIRST_UID = 101


def _spec(width: int, height: int, fps: int) -> RecordingSpec:
    spec = RecordingSpec(sid="b" * 32, app_id="app", channel="room", uid=900, mode="mix")
    return spec.model_copy(update={"canvas": CanvasSpec(width=width, height=height, fps=fps), "layout": Layout(number=1)})


class _Floor:
    """The same codecs on the same media, and nothing else: decode everybody, encode one canvas and one mix."""

    def __init__(self, width: int, height: int) -> None:
        library = Library(ROOT / "build" / "media")
        uids = range(FIRST_UID, FIRST_UID + PEOPLE)
        self._videos, self._sounds = asyncio.run(self._load(library, uids))
        self._canvases = self._draw(width, height)
        self._mix = np.random.default_rng(1).normal(0, 0.1, (1, 48000)).astype(np.float32)
        self._size = width, height

    @staticmethod
    async def _load(library: Library, uids: Iterable[int]) -> tuple[list[list[bytes]], list[tuple[bytes, ...]]]:
        videos = [await library.video(Style(uid, fps=FPS), "vp8", BITRATE_KBPS) for uid in uids]
        sounds = [await library.audio(uid) for uid in uids]
        starts = [[packet for start in range(0, v.frames, v.gop) for packet in v.runs[start]] for v in videos]
        return starts, [sound.packets for sound in sounds]

    def _draw(self, width: int, height: int) -> list[Canvas]:
        """Canvases as the recording draws them, made before the clock runs."""
        decoders = [VideoDecoder("vp8") for _ in self._videos]
        canvases = []
        for number in range(len(self._videos[0])):
            canvas = Canvas(width, height)
            compositor = Compositor(canvas, Scaler)
            compositor.arrange(layouts.load(1).place(range(PEOPLE), canvas.size, layouts.Options()))
            for uid, decoder in enumerate(decoders):
                compositor.set_picture(uid, picture_of(decoder.decode(self._videos[uid][number], 0)[0][0]))
            compositor.draw()
            canvases.append(canvas)
        return canvases

    def milliseconds_per_second(self) -> float:
        video_decoders = [VideoDecoder("vp8") for _ in self._videos]
        audio_decoders = [AudioDecoder("opus", 1) for _ in self._sounds]
        width, height = self._size
        encoder = VideoEncoder(width=width, height=height, fps=FPS, bitrate_kbps=BITRATE_KBPS)
        sound = AudioEncoder(0)
        frames = [frame_of(canvas.planes) for canvas in self._canvases]
        seconds = len(frames) // FPS
        started = time.process_time()
        for number, frame in enumerate(frames):
            for decoder, video in zip(video_decoders, self._videos, strict=True):
                decoder.decode(video[number], 0)
            encoder.encode(frame, number)
        for audio_decoder, packets in zip(audio_decoders, self._sounds, strict=True):
            for packet in packets:
                audio_decoder.decode(packet, 0)
        for _ in range(seconds):
            sound.encode(self._mix)
        return (time.process_time() - started) * 1000 / seconds


async def _recorded(width: int, height: int, floor: _Floor) -> tuple[list[float], list[float]]:
    """CPU in ms per second of one recording over the network of this machine, and of the floor, in turn."""
    ours, floors = [], []
    with tempfile.TemporaryDirectory() as folder:
        at = settings(Path(folder))
        async with contextlib.AsyncExitStack() as stack:
            url = await stack.enter_async_context(hub(at))
            options = ("--count", str(PEOPLE), "--video", "vp8", "--fps", str(FPS), "--bitrate", str(BITRATE_KBPS))
            await stack.enter_async_context(publisher(url, FIRST_UID, *options))
            await asyncio.sleep(3)  # the others join
            for number in range(ROUNDS):
                spec = _spec(width, height, FPS).model_copy(update={"sid": f"{number:032x}"})
                async with TestedWorker(at, spec).running() as worker:
                    await worker.until(lambda worker=worker: any(isinstance(r.body, FileOpened) for r in worker.reports), 30)
                    await asyncio.sleep(WARM_SECONDS)
                    cpu, clock = worker.cpu_seconds(), time.monotonic()
                    await asyncio.sleep(MEASURED_SECONDS)
                    ours.append((worker.cpu_seconds() - cpu) * 1000 / (time.monotonic() - clock))
                    await worker.stop()
                floors.append(floor.milliseconds_per_second())
    return ours, floors


def _loopback(name: str, width: int, height: int) -> Iterable[Result]:
    ours, floors = asyncio.run(_recorded(width, height, _Floor(width, height)))
    ratio = statistics.median(a / b for a, b in zip(ours, floors, strict=True))
    value, floor = statistics.median(ours), statistics.median(floors)
    yield Result(f"{name}/loopback", round(value, 1), "CPU ms per s", f"codec floor {floor:.1f}", round(ratio, 3))


def composite_9x360p15_640x360p15() -> Iterable[Result]:
    return _loopback("composite_9x360p15_640x360p15", 640, 360)


BENCHES = {"composite_9x360p15_640x360p15": composite_9x360p15_640x360p15}
