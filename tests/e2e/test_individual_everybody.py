"""Seven people of every kind, each recorded by itself through the HTTP API: files, playlists, and every frame as it was sent."""

import asyncio
import contextlib
import json
import re
import subprocess
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from urllib.parse import quote, unquote

import pytest

from recorder.tools import measure
from recorder.tools.api_client import folder_storage
from recorder.tools.content import tone_hz
from recorder.tools.offline.merge import merge
from recorder.tools.offline.options import Options
from recorder.tools.publish import Publication, Publisher
from recorder.tools.publish_media import Library, VideoCodec
from tests.e2e import requests
from tests.e2e.browser import CHROMIUM, chromium, played_by_hls_js
from tests.e2e.playlist import entries
from tests.e2e.sent import Sent, video_payloads
from tests.live import ROOT
from tests.service import Service, service

H264, VP8, VP9, HEARD, SEEN, GUEST, TURNING = range(101, 108)
CODECS: dict[int, VideoCodec | None] = {H264: "h264", VP8: "vp8", VP9: "vp9", HEARD: None, SEEN: "h264", GUEST: "h264", TURNING: "h264"}
SIZE, SMALL, FPS, KBPS = (320, 180), (256, 144), 15, 200
FRAME = 1 / FPS
CHANNEL = "room #1"

_NAME = re.compile(
    r"[0-9a-f]{32}_room #1__uid_s_(?P<uid>\d+)__uid_e_(?P<kind>audio|video|av)(?:_(?P<utc>\d{17}))?\.(?P<suffix>m3u8|mpd|ts|webm)"
)
_SIDE_FILE = re.compile(r"[0-9a-f]{32}_room #1_(timeline|manifest)\.json")


@dataclass
class Happened:
    """Unix times."""

    muted: float = 0
    unmuted: float = 0
    left: list[float] = field(default_factory=list)
    returned: list[float] = field(default_factory=list)
    small: float = 0
    turned: float = 0
    started: float = 0
    stopped: float = 0


def person(running: Service, uid: int, library: Library) -> Publisher:
    audio = None if uid == SEEN else "opus"
    return Publisher(
        Publication(
            running.hub,
            running.credentials.app_id,
            CHANNEL,
            uid,
            video=CODECS[uid],
            audio=audio,  # type: ignore[arg-type]  # "opus" or None
            width=SIZE[0],
            height=SIZE[1],
            fps=FPS,
            bitrate_kbps=KBPS,
        ),
        library,
    )


async def live(running: Service, stack: contextlib.AsyncExitStack, folders: dict[str, str]) -> Happened:
    """Everybody is there for 45 s; the guest mutes, leaves and returns twice, one camera changes its size and is turned."""
    library = Library(ROOT / "build" / "media")
    happened = Happened()

    async def enter(uid: int) -> Publisher:
        one = person(running, uid, library)
        stack.push_async_callback(one.stop)
        await one.start()
        return one

    people = {uid: await enter(uid) for uid in CODECS}
    client = await stack.enter_async_context(running.client())
    recordings = []
    for uid, (mode, folder) in enumerate(folders.items(), 901):
        body = requests.individual(folder_storage("bucket", folder))
        body["recordingConfig"]["streamMode"] = mode
        recordings.append(await client.start(CHANNEL, uid, "individual", body))
    happened.started = time.time()
    await asyncio.sleep(4)
    await people[GUEST].mute(audio=True, video=True)
    happened.muted = time.time()
    await people[TURNING].change_picture(size=SMALL)
    happened.small = time.time()
    await asyncio.sleep(3)
    await people[GUEST].mute(audio=False, video=False)
    happened.unmuted = time.time()
    await asyncio.sleep(3)
    for away in (4, 18):  # within the time in which a return continues the segment, and after it
        await people[GUEST].stop()
        happened.left.append(time.time())
        if not happened.turned:
            await people[TURNING].change_picture(size=SMALL, rotation=90)
            happened.turned = time.time()
        await asyncio.sleep(away)
        people[GUEST] = await enter(GUEST)
        happened.returned.append(time.time())
        await asyncio.sleep(4)
    happened.stopped = time.time()
    for recording in recordings:
        assert (await recording.stop())["uploadingStatus"] == "uploaded"
    return happened


@pytest.mark.timeout(240)
async def test_everybody_is_recorded_alone(tmp_path: Path) -> None:
    folders = {"default": "default", "standard": "standard"}
    async with contextlib.AsyncExitStack() as stack:
        running = await stack.enter_async_context(service(tmp_path))
        happened = await live(running, stack, folders)
    for mode, folder in folders.items():
        stored = running.data / "recordings" / "bucket" / folder
        found = files(stored)
        assert set(found) == expected(mode)
        for path in (path for (_, kind), path in found.items() if kind != "av"):
            follows_the_rules(path)
        for uid, codec in CODECS.items():
            if codec:
                await pictures_are_those_that_were_sent(found[uid, "video"], uid, codec)
        the_guest_is_there_when_they_were(found, happened)
        the_turned_camera_is_told(found, happened)
        if mode == "standard":
            merged_lists_name_every_slice(found)
        lips_match_voices(found)
        await a_browser_plays_them(found)
        await asyncio.to_thread(they_can_be_merged, stored)


def files(stored: Path) -> dict[tuple[int, str], Path]:
    """The playlists, by uid and kind; every file must have a name that the offline tools know."""
    found: dict[tuple[int, str], Path] = {}
    for path in stored.iterdir():
        match = _NAME.fullmatch(path.name)
        assert match or _SIDE_FILE.fullmatch(path.name), path.name
        if match and not match["utc"]:
            found[int(match["uid"]), match["kind"]] = path
        elif match:
            words = ["ffprobe", "-v", "error", "-show_streams", "-of", "json", str(path)]
            probed = subprocess.run(words, capture_output=True, text=True, check=True)
            assert [stream["codec_type"] for stream in json.loads(probed.stdout)["streams"]] == [match["kind"]]
            assert probed.stderr == ""
    return found


def expected(mode: str) -> set[tuple[int, str]]:
    lists = {(uid, "video") for uid in CODECS if uid != HEARD} | {(uid, "audio") for uid in CODECS if uid != SEEN}
    return lists | ({(uid, "av") for uid in CODECS} if mode == "standard" else set())


def follows_the_rules(playlist: Path) -> None:
    lines = playlist.read_text().splitlines()
    assert lines[:4] == ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-MEDIA-SEQUENCE:0", "#EXT-X-ALLOW-CACHE:YES"]
    assert re.fullmatch(r"#EXT-X-TARGETDURATION:\d+", lines[4])
    assert lines[5] == "#EXT-X-DISCONTINUITY"
    assert lines[-1] == "#EXT-X-ENDLIST"
    durations, starts, started, sized = [], [], False, False
    for line, following in pairwise(lines[5:]):
        if line.startswith("#EXT-X-AGORA-TRACK-EVENT"):
            assert re.fullmatch(r"#EXT-X-AGORA-TRACK-EVENT:EVENT=START,TRACK_TYPE=(AUDIO|VIDEO),TIME=\d{17}", line)
            started = True
        elif line.startswith("#EXT-X-AGORA-ROTATE"):
            assert re.fullmatch(r"#EXT-X-AGORA-ROTATE:WIDTH=\d+,HEIGHT=\d+,ROTATE=(0|90|180|270),TIME=\d{17}", line)
            sized = True
        elif line.startswith("#EXTINF"):
            assert re.fullmatch(r"#EXTINF:\d+\.\d{6}", line)
            assert started
            assert sized or "_audio" in playlist.name
            durations.append(float(line.removeprefix("#EXTINF:")))
            starts.append(following[-20:-3] if following.endswith(".ts") else following[-22:-5])
        else:
            assert line == "#EXT-X-DISCONTINUITY" or not line.startswith("#")
    assert starts == sorted(starts)
    assert max(durations) <= int(lines[4].partition(":")[2])
    assert max(durations) < 17  # a keyframe is asked for when a slice is old enough
    for path, duration in zip(entries(playlist), durations, strict=True):
        assert measure.decode_errors([path]) == []
        longest_wait = 0.1 if "_audio" in playlist.name else 0.6  # before a change of size, for the keyframe
        assert -0.1 < duration - measure.probe(path).duration < longest_wait


async def pictures_are_those_that_were_sent(playlist: Path, uid: int, codec: VideoCodec) -> None:
    sent = Sent()
    for size in (SIZE, SMALL) if uid == TURNING else (SIZE,):
        await sent.add(uid, codec, size=size, fps=FPS, kbps=KBPS)
    slices = entries(playlist)
    payloads = [payload for path in slices for _, payload in video_payloads(path)]
    # A mute and two absences; a camera that changes waits for its next keyframe, twice.
    assert sent.follow(payloads) <= {GUEST: 3, TURNING: 2}.get(uid, 0)
    shown = [measure.read_counter(measure.luma_of(frame)) for path in slices for _, frame in measure.video_frames(path)]
    assert len(shown) == len(payloads)
    assert None not in shown


def spans(playlist: Path) -> list[tuple[float, float]]:
    """Begin and end of each slice, Unix time, by the playlist alone."""
    durations = [float(text) for text in re.findall(r"#EXTINF:([\d.]+)", playlist.read_text())]
    begins = [unix(path.stem[-17:]) for path in entries(playlist)]
    return [(begin, begin + duration) for begin, duration in zip(begins, durations, strict=True)]


def unix(digits: str) -> float:
    return time.mktime(time.strptime(digits[:14], "%Y%m%d%H%M%S")) - time.timezone + int(digits[14:]) / 1000


def the_guest_is_there_when_they_were(found: dict[tuple[int, str], Path], happened: Happened) -> None:
    video = spans(found[GUEST, "video"])
    gaps = [(end, begin) for (_, end), (begin, _) in pairwise(video) if begin - end > 0.5]
    away = [(happened.muted, happened.unmuted), *zip(happened.left, happened.returned, strict=True)]
    assert len(gaps) == len(away)
    for (end, begin), (left, returned) in zip(gaps, away, strict=True):
        assert end == pytest.approx(left, abs=0.5)
        assert returned - 1.0 < begin < returned + 1.0
    assert found[GUEST, "video"].read_text().count("EVENT=START") == 2  # the short absences continue the segment
    sound = spans(found[GUEST, "audio"])
    pauses = [(end, begin) for (_, end), (begin, _) in pairwise(sound) if begin - end > 0.5]
    assert len(pauses) == 1  # silence fills the others
    assert found[GUEST, "audio"].read_text().count("EVENT=START") == 2


def the_turned_camera_is_told(found: dict[tuple[int, str], Path], happened: Happened) -> None:
    text = found[TURNING, "video"].read_text()
    told = re.findall(r"WIDTH=(\d+),HEIGHT=(\d+),ROTATE=(\d+),TIME=(\d+)", text)
    assert [(int(width), int(height), int(rotation)) for width, height, rotation, _ in told] == [
        (*SIZE, 0),
        (*SMALL, 0),
        (*SMALL, 270),  # the tag counts the other way
    ]
    assert unix(told[1][3]) == pytest.approx(happened.small, abs=0.7)
    assert unix(told[2][3]) == pytest.approx(happened.turned, abs=0.7)
    assert text.count("#EXT-X-DISCONTINUITY") == 2  # at the beginning and for the size; a rotation begins no slice


def merged_lists_name_every_slice(found: dict[tuple[int, str], Path]) -> None:
    for uid in CODECS:
        tracks = [found[uid, kind] for kind in ("video", "audio") if (uid, kind) in found]
        text = found[uid, "av"].read_text()
        if uid in (VP8, VP9):
            assert found[uid, "av"].suffix == ".mpd"
            named = [unquote(name) for name in re.findall(r'media="([^"]+)"', text)]
            assert named == [path.name for track in tracks for path in entries(track)]
            assert {Path(name).suffix for name in named} == {".webm"}
            assert re.search(r'width="320" height="180" rotate="0" time="\d{17}"', text)
            assert text.count("ExtDiscontinuity time=") == 2  # of each track's first slice
        else:
            assert found[uid, "av"].suffix == ".m3u8"
            assert all(quote(track.name) in text for track in tracks)


def lips_match_voices(found: dict[tuple[int, str], Path]) -> None:
    """By the names of the slices, as players of single files align them: flash against beep."""
    for uid in (H264, VP8, VP9):
        flashes = on_the_wall_clock(found[uid, "video"], measure.flash_onsets)
        beeps = on_the_wall_clock(found[uid, "audio"], lambda path, uid=uid: measure.beep_onsets(path, tone_hz(uid)))
        offsets = sorted(measure.offsets(flashes, beeps))
        assert len(offsets) > 20
        assert abs(offsets[len(offsets) // 2]) < 0.02


def on_the_wall_clock(playlist: Path, onsets: object) -> list[float]:
    assert callable(onsets)
    found = []
    for path, (begin, _) in zip(entries(playlist), spans(playlist), strict=True):
        kind = "video" if "_video_" in path.name else "audio"
        stream = measure.probe(path).stream(kind)
        assert stream
        found += [begin + onset - stream.start for onset in onsets(path)]
    return found


async def a_browser_plays_them(found: dict[tuple[int, str], Path]) -> None:
    if not CHROMIUM:
        return
    async with chromium() as browser:
        played = await played_by_hls_js(browser, found[H264, "audio"])
        assert played["seconds"] == pytest.approx(length(found[H264, "audio"]), abs=0.5)
        assert played["sound"] > 0
        for uid in (H264, GUEST, TURNING):
            played = await played_by_hls_js(browser, found[uid, "video"])
            assert played["seconds"] == pytest.approx(length(found[uid, "video"]), abs=0.5)
            frames = sum(1 for path in entries(found[uid, "video"]) for _ in video_payloads(path))
            assert played["frames"] == pytest.approx(frames, abs=frames // 20)


def length(playlist: Path) -> float:
    return sum(end - begin for begin, end in spans(playlist))


def they_can_be_merged(stored: Path) -> None:
    """As long as everybody was there, and in sync within 20 ms at the start, in the middle and at the end."""
    lasting: dict[int, list[float]] = {uid: [float("inf"), 0.0] for uid in CODECS}
    for path in stored.glob("*_audio.m3u8"), stored.glob("*_video.m3u8"):
        for playlist in path:
            match = _NAME.fullmatch(playlist.name)
            assert match
            times = spans(playlist)
            span = lasting[int(match["uid"])]
            span[:] = min(span[0], times[0][0]), max(span[1], times[-1][1])
    merge(stored, Options(mode=1))
    for uid, codec in CODECS.items():
        merged = stored / f"{uid}_0_merge{'.m4a' if uid == HEARD else '.mp4' if uid == SEEN else '_av.mp4'}"
        assert measure.decode_errors([merged]) == []
        assert measure.probe(merged).duration == pytest.approx(lasting[uid][1] - lasting[uid][0], abs=0.15)
        if codec and uid not in (SEEN, TURNING):
            offsets = measure.av_offsets(merged, tone_hz(uid))
            third = len(offsets) // 3
            for part in (offsets[:third], offsets[third : 2 * third], offsets[2 * third :]):
                assert abs(median(part)) <= 0.02
