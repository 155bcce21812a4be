"""Rows N24-N30, N32 and T5: what people may do in a channel, and what their devices may fail to do."""

import asyncio
import contextlib
import dataclasses
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any, Final

from pydantic import SecretStr

from recorder.agent.process import WORKER
from recorder.protocol import Ended, FileOpened, StreamChanged
from recorder.rtp.negotiation import use_addresses
from recorder.settings import Agent, Settings
from recorder.spec import MOST_HEARD, Canvas, Layout, RecordingSpec, Region
from recorder.tools import measure
from recorder.tools.content import Style
from recorder.tools.publish import Publication, Publisher
from recorder.tools.publish_media import Library, VideoCodec
from recorder.tools.publish_tracks import LoopedVideo, VideoSource
from tests.chaos import noting_worker
from tests.impair.impairment import Conditions
from tests.impair.proxy import ImpairedHub
from tests.live import ROOT, TestedWorker, hub, publisher, settings
from tests.tokens import token_007
from tests.viewer import Seen, watch

Measured = dict[str, Any]

_SID, _OTHER_SID = "11fe" * 8, "22fe" * 8
_STEADY, _GUEST = 101, 102
_LEFT, _RIGHT = measure.Rect(0, 0, 320, 180), measure.Rect(320, 0, 320, 180)
_SYNC_SECONDS: Final = 0.045
_LENGTH_TOLERANCE_SECONDS: Final = 0.3


class Room:
    """A hub and a worker that records its channel, with a place of their own for two participants."""

    def __init__(self, url: str, worker: TestedWorker, folder: Path, at: Settings) -> None:
        self.url = url
        self.settings = at
        self.worker = worker
        self._folder = folder
        self._library = Library(ROOT / "build" / "media")

    @contextlib.asynccontextmanager
    async def present(self, uid: int, kind: type[Publisher] = Publisher, **wanted: Any) -> AsyncIterator[Publisher]:
        """A participant in this process, while the block lasts."""
        publication = Publication(hub=self.url, app_id="app", channel="room", uid=uid, fps=15)
        person = kind(dataclasses.replace(publication, **wanted), self._library)
        try:
            await person.start()
            yield person
        finally:
            await person.stop()

    async def recording(self) -> None:
        await self.worker.until(lambda: any(isinstance(report.body, FileOpened) for report in self.worker.reports), 30)

    async def watched(self, *people: tuple[int, measure.Rect]) -> tuple[dict[int, Seen], float]:
        """Stop the recording; what is seen of these people, and how long it should be."""
        stopped = time.time()
        await self.worker.stop()
        assert self.worker.ended is not None
        assert (self.worker.ended.outcome, self.worker.ended.reason) == ("complete", "stopped")
        return await self.kept(stopped, *people)

    async def kept(self, until: float, *people: tuple[int, measure.Rect]) -> tuple[dict[int, Seen], float]:
        """What is seen of these people in the files of a recording that went on `until` then, and how long it should be."""
        slices = self.worker.slices
        whole = self._folder / "whole.ts"
        whole.write_bytes(b"".join((self.worker.folder / "files" / item.name).read_bytes() for item in slices))
        assert measure.decode_errors([whole]) == []
        seen = await asyncio.to_thread(watch, whole, people, live=False)
        return seen, until - slices[0].start_ms / 1000


@contextlib.asynccontextmanager
async def room(folder: Path, *, target: str = WORKER, certificate: str | None = None, **changes: object) -> AsyncIterator[Room]:
    """With a certificate the channel needs tokens."""
    use_addresses(["127.0.0.1"])
    at = settings(folder, slice_seconds=4)
    if certificate:
        at = at.model_copy(update={"hub": at.hub.model_copy(update={"certificates": {"app": SecretStr(certificate)}})})
    async with hub(at) as url, TestedWorker(at, _spec(**changes), target=target).running() as worker:
        await worker.until(lambda: "ready" in worker.phases())
        yield Room(url, worker, folder, at)


@contextlib.asynccontextmanager
async def _another(folder: Path, url: str, spec: RecordingSpec, *, epoch: int = 1) -> AsyncIterator[Room]:
    """One more worker in the channels of that hub, with a spool in `folder`."""
    at = settings(folder, slice_seconds=4).model_copy(update={"agent": Agent(hub_url=url)})
    async with TestedWorker(at, spec, epoch=epoch).running() as worker:
        await worker.until(lambda: "ready" in worker.phases())
        yield Room(url, worker, folder, at)


def _spec(**changes: object) -> RecordingSpec:
    places = tuple(Region(uid=uid, x=x, y=0, width=0.5, height=0.5) for uid, x in ((_STEADY, 0), (_GUEST, 0.5)))
    return RecordingSpec(
        sid=_SID, app_id="app", channel="room", uid=900, mode="mix", canvas=Canvas(width=640, height=360, fps=30, bitrate_kbps=1000)
    ).model_copy(update={"layout": Layout(number=3, regions=places), "max_idle_seconds": 60, **changes})


async def coming_and_going(folder: Path, measured: Measured, *, seed: int, cycles: int) -> None:
    """N24: somebody joins, mutes and leaves again and again, and a second one tries the same uid; the others notice nothing."""
    dice = Random(seed)
    print(f"seed {seed}")
    async with room(folder) as at, publisher(at.url, _STEADY), contextlib.AsyncExitStack() as stack:
        await at.recording()
        for number in range(cycles):
            async with at.present(_GUEST, width=320, height=180) as guest:
                await asyncio.sleep(dice.uniform(0.2, 0.6))
                for muted in (True, False):
                    await guest.mute(audio=dice.random() < 0.5 and muted, video=dice.random() < 0.5 and muted)
                    await asyncio.sleep(dice.uniform(0, 0.3))
                if number % 5 == 0:
                    async with at.present(_GUEST, width=320, height=180):  # the same uid again: the later one stays
                        async with asyncio.timeout(10):
                            await guest.closed.wait()
                        await asyncio.sleep(dice.uniform(0, 0.5))
        await stack.enter_async_context(at.present(_GUEST, width=320, height=180))
        await asyncio.sleep(3)
        seen, expected = await at.watched((_STEADY, _LEFT), (_GUEST, _RIGHT))
    measured |= {"expected_seconds": round(expected, 3), "cycles": cycles} | seen[_STEADY].figures()
    steady, last = seen[_STEADY], seen[_GUEST]
    assert abs(steady.length - expected) <= _LENGTH_TOLERANCE_SECONDS
    assert abs(steady.sound_length - steady.length) <= 0.1
    assert steady.frozen_seconds <= 0.5
    assert len(steady.beeps) >= int(expected) - 1  # one a second: no sound is missing
    assert steady.offset_p95() <= _SYNC_SECONDS
    assert steady.backward_steps == 0
    assert len({content for at, content in last.pictures if at > expected - 2}) >= 20  # the last visit is seen, in motion


async def nobody_left(folder: Path, measured: Measured, *, idle_seconds: int) -> None:
    """N25: the recording ends by itself, its files complete."""
    async with room(folder, max_idle_seconds=idle_seconds) as at:
        async with publisher(at.url, _STEADY):
            await at.recording()
            await asyncio.sleep(2)
        left = time.monotonic()
        await at.worker.until(lambda: at.worker.ended is not None, idle_seconds + 10)
        measured["idle_seconds"] = round(time.monotonic() - left, 2)
        assert at.worker.ended is not None
        assert (at.worker.ended.outcome, at.worker.ended.reason) == ("complete", "idle")
        assert at.worker.slices
        files = [at.worker.folder / "files" / item.name for item in at.worker.slices]
        assert measure.decode_errors(files) == []
    assert idle_seconds - 1 <= measured["idle_seconds"] <= idle_seconds + 3


class _Wordless(Publisher):
    """Joins and never sends a packet."""

    async def _add_tracks(self) -> None:
        await super()._add_tracks()
        assert self.audio
        assert self.video
        self.audio.muted = self.video.muted = True


async def nobody_sends(folder: Path, measured: Measured) -> None:
    """N26: somebody is there, who counts as present, but sends nothing: no file, not even an empty one."""
    async with room(folder, max_idle_seconds=5) as at, at.present(_STEADY, _Wordless):
        await asyncio.sleep(8)
        assert at.worker.ended is None
        await at.worker.stop()
        assert at.worker.ended is not None
        assert (at.worker.ended.outcome, at.worker.ended.reason) == ("complete", "stopped")
        assert at.worker.slices == []
        left = [path.name for path in at.worker.folder.rglob("*") if path.suffix in (".ts", ".mp4", ".m3u8", ".fragments", ".webm")]
        measured["files"] = left
        assert left == []


async def idle_across_workers(folder: Path, measured: Measured, *, idle_seconds: int, deaths: int) -> None:
    """T5: a recording that nobody is in ends in its time, although its worker is killed again and again meanwhile."""
    async with room(folder, max_idle_seconds=600) as at:  # for its hub
        spec, spool, began = _spec(sid=_OTHER_SID, max_idle_seconds=idle_seconds), folder / "b", time.monotonic()
        for epoch in range(1, deaths + 1):
            async with _another(spool, at.url, spec, epoch=epoch) as recorder:
                await asyncio.sleep(max(0.0, began + idle_seconds * epoch / (deaths + 1) - time.monotonic()))
                assert recorder.worker.ended is None
        async with _another(spool, at.url, spec, epoch=deaths + 1) as recorder:
            await recorder.worker.until(lambda: recorder.worker.ended is not None, idle_seconds + 10)
            measured["idle_seconds"] = round(time.monotonic() - began, 2)
            assert recorder.worker.ended is not None
            assert (recorder.worker.ended.outcome, recorder.worker.ended.reason) == ("complete", "idle")
    assert idle_seconds <= measured["idle_seconds"] <= idle_seconds + 3


async def token_expiry(folder: Path, measured: Measured, *, seconds: int) -> None:
    """N27: the recorder's token ends in mid-recording. What was recorded until then is kept, and there is one end, for that reason."""
    certificate, now = secrets.token_hex(16), int(time.time())
    mine, theirs = (
        token_007("app", certificate, "room", uid, {1: lasts}, issued_at=now, seconds=86_400) for uid, lasts in ((900, seconds), (0, 3600))
    )
    token_file = folder / "publisher.token"
    token_file.write_text(theirs)
    async with room(folder, certificate=certificate, token=SecretStr(mine)) as at:
        async with publisher(at.url, _STEADY, "--token-file", str(token_file)):
            await at.recording()
            await at.worker.until(lambda: at.worker.ended is not None, seconds + 20)
            ended = time.time()
        assert at.worker.process
        async with asyncio.timeout(10):
            await at.worker.process.wait()
        (last,) = (report.body for report in at.worker.reports if isinstance(report.body, Ended))
        assert (last.outcome, last.reason) == ("aborted", "token_expired")
        assert at.worker.reports[-1].body is last
        assert list((at.worker.folder / "partial").iterdir()) == []
        kept, until_ended = await at.kept(ended, (_STEADY, _LEFT))
    measured |= {"kept_seconds": round(kept[_STEADY].length, 3), "late_seconds": round(ended - now - seconds, 3)}
    assert -1 <= measured["late_seconds"] <= 15
    assert abs(kept[_STEADY].length - until_ended) <= 1


async def duplicate_identity(folder: Path, measured: Measured, *, seconds: float) -> None:
    """N28: another recorder comes under the same uid. The one who was there keeps what it has, ends with one error, writes no more."""
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(room(folder))
        await stack.enter_async_context(publisher(first.url, _STEADY))
        await first.recording()
        await asyncio.sleep(seconds)
        second = await stack.enter_async_context(_another(folder / "b", first.url, _spec(sid=_OTHER_SID)))
        kicked = time.time()
        await first.worker.until(lambda: first.worker.ended is not None, 10)
        assert first.worker.process
        async with asyncio.timeout(10):
            await first.worker.process.wait()
        left, reports = _tree(first.worker.folder), list(first.worker.reports)
        await second.recording()
        await asyncio.sleep(seconds)
        assert _tree(first.worker.folder) == left
        assert first.worker.reports == reports
        (last,) = (report.body for report in reports if isinstance(report.body, Ended))
        assert (last.outcome, last.reason) == ("aborted", "kicked")
        assert reports[-1].body is last
        assert list((first.worker.folder / "partial").iterdir()) == []
        loser, until_kicked = await first.kept(kicked, (_STEADY, _LEFT))
        winner, expected = await second.watched((_STEADY, _LEFT))
    measured |= {"kept_seconds": round(loser[_STEADY].length, 3), "until_kicked_seconds": round(until_kicked, 3)}
    assert abs(loser[_STEADY].length - until_kicked) <= 1
    assert abs(winner[_STEADY].length - expected) <= _LENGTH_TOLERANCE_SECONDS
    assert winner[_STEADY].offset_p95() <= _SYNC_SECONDS


def _tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below, with its size and when it was written last."""
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


async def duplicate_before_media(folder: Path, measured: Measured) -> None:
    """N28: who loses its place before anybody was to be recorded leaves no file."""
    async with room(folder) as first, _another(folder / "b", first.url, _spec(sid=_OTHER_SID)) as second:
        await first.worker.until(lambda: first.worker.ended is not None, 10)
        assert first.worker.ended is not None
        assert (first.worker.ended.outcome, first.worker.ended.reason) == ("aborted", "kicked")
        assert first.worker.slices == []
        written = [path.name for part in ("files", "partial") for path in (first.worker.folder / part).iterdir()]
        measured["files"] = written
        assert written == []
        await asyncio.sleep(1)
        assert second.worker.ended is None


class _WithoutKeyframes(Publisher):
    """Never sends a keyframe, however often it is asked."""

    async def _source(self, codec: VideoCodec, style: Style, kbps: int) -> VideoSource:
        looped = await super()._source(codec, style, kbps)
        assert isinstance(looped, LoopedVideo)
        return _DeltasOnly(looped)


class _DeltasOnly:
    def __init__(self, looped: LoopedVideo) -> None:
        self.fps = looped.fps
        self._looped = looped

    async def frame(self, index: int, *, keyframe: bool) -> tuple[bytes, bool] | None:
        frame = await self._looped.frame(index, keyframe=False)
        return None if frame is None or frame[1] else frame


async def no_keyframe(folder: Path, measured: Measured, *, seconds: float) -> None:
    """N29: the sound is recorded, the picture's place stays empty, and keyframes are asked for at most twice a second."""
    async with room(folder) as at, at.present(_STEADY, _WithoutKeyframes) as person:
        await at.recording()
        await asyncio.sleep(seconds)
        assert person.video is not None
        asked = person.video.keyframe_requests
        seen, expected = await at.watched((_STEADY, _LEFT))
    measured |= {"keyframe_requests": asked, "beeps": len(seen[_STEADY].beeps), "expected_seconds": round(expected, 3)}
    assert len(seen[_STEADY].beeps) >= int(seconds) - 1
    assert seen[_STEADY].pictures == ()
    assert abs(seen[_STEADY].length - expected) <= _LENGTH_TOLERANCE_SECONDS
    assert seconds - 2 <= asked <= 2 * seconds + 4


async def crowd(folder: Path, measured: Measured, *, people: int) -> None:
    """N32: everybody joins at once; only those with a place are decoded, and who was there before is recorded as if alone."""
    async with room(folder, target=noting_worker.TARGET) as at, publisher(at.url, _STEADY):
        await at.recording()
        await asyncio.sleep(2)
        async with publisher(at.url, 201, "--count", str(people), "--size", "160x90", "--fps", "5", "--bitrate", "50", "--shared-content"):
            await asyncio.sleep(10)
            cpu, clock = at.worker.cpu_seconds(), time.monotonic()
            await asyncio.sleep(4)
            measured["worker_cores"] = round((at.worker.cpu_seconds() - cpu) / (time.monotonic() - clock), 3)
            present = {item.body.uid for item in at.worker.reports if isinstance(item.body, StreamChanged) and item.body.receiving}
            seen, expected = await at.watched((_STEADY, _LEFT))
            decoded = noting_worker.decoded(at.settings)
    measured |= {"received": len(present), "decoded": len(decoded)}
    assert present >= {_STEADY, *range(201, 201 + min(people, MOST_HEARD - 1))}
    assert decoded == {_STEADY}
    measured |= seen[_STEADY].figures() | {"people": people, "expected_seconds": round(expected, 3)}
    assert abs(seen[_STEADY].length - expected) <= _LENGTH_TOLERANCE_SECONDS
    assert all(gap.seconds <= 1.0 for gap in seen[_STEADY].frozen)  # a machine that is too slow makes fewer pictures, but goes on
    assert len(seen[_STEADY].beeps) >= int(expected) - 1
    assert seen[_STEADY].offset_p95() <= _SYNC_SECONDS


async def narrow_path(folder: Path, measured: Measured, *, seconds: float) -> None:
    """N30: 200 kbit/s and 800 ms there and back, less than what is sent: most of the sound is recorded, nothing piles up, length exact."""
    narrow, back = Conditions(delay_ms=400, rate_kbps=200), Conditions(delay_ms=400)
    async with room(folder) as at, ImpairedHub(at.url, seed=1, media=narrow, feedback=back).running() as network:
        async with publisher(network.url, _STEADY, "--size", "320x180", "--fps", "15", "--bitrate", "145"):
            await at.recording()
            await asyncio.sleep(seconds / 2)
            memory = at.worker.resident_bytes()
            await asyncio.sleep(seconds / 2)
            measured["grown_megabytes"] = round((at.worker.resident_bytes() - memory) / 1e6, 1)
            seen, expected = await at.watched((_STEADY, _LEFT))
        counters = network.counters()
    measured |= {"overflowed": counters.overflowed, "packets": counters.taken, "beeps": len(seen[_STEADY].beeps)}
    measured |= {"expected_seconds": round(expected, 3), "seconds": round(seen[_STEADY].length, 3)}
    assert counters.overflowed > 0
    assert abs(seen[_STEADY].length - expected) <= _LENGTH_TOLERANCE_SECONDS
    assert len(seen[_STEADY].beeps) >= seconds / 2
    assert measured["grown_megabytes"] < 10


async def vanished_and_back(folder: Path, measured: Measured, *, seconds: float) -> None:
    """N9 as publishers see it: one is cut off without a word, and joins again under the same uid once it can."""
    async with room(folder) as at:
        async with publisher(at.url, _STEADY) as process:
            await at.recording()
            await asyncio.sleep(4)
            process.kill()
        await asyncio.sleep(seconds)
        async with publisher(at.url, _STEADY):
            back = time.time()
            await asyncio.sleep(6)
            seen, expected = await at.watched((_STEADY, _LEFT))
            stopped = time.time()
    steady = seen[_STEADY]
    measured |= steady.figures() | {"expected_seconds": round(expected, 3), "away_seconds": seconds}
    assert abs(steady.length - expected) <= _LENGTH_TOLERANCE_SECONDS
    assert abs(steady.sound_length - steady.length) <= 0.1
    returned = expected - (stopped - back)
    assert [at for at, _ in steady.pictures if at > returned + 1]
    assert len([beep for beep in steady.beeps if beep > returned + 0.5]) >= 4
    assert steady.offset_p95() <= _SYNC_SECONDS
