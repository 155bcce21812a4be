"""Six real publishers, recorded through the HTTP API while the layout goes through all four forms."""

import asyncio
import bisect
import contextlib
import re
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from av.video.frame import VideoFrame

from mixer.canvas import colour
from recorder.tools import measure
from recorder.tools.api_client import RunningRecording, folder_storage
from recorder.tools.content import tone_hz
from recorder.tools.publish import Publication, Publisher
from recorder.tools.publish_media import Library
from tests.e2e.playlist import joined
from tests.image_server import ImageServer, image_server, png, whole
from tests.live import ROOT
from tests.service import Service, service
from tests.viewer import silences

UIDS = (101, 102, 103, 104, 105, 106)
WIDTH, HEIGHT, FPS = 640, 360, 15
SLICE_SECONDS = 4
GREEN = (0x00, 0xA0, 0x50)  # nobody's colour
PERIOD = 4.0  # seconds between two layouts

Seen = dict[str, int | str | None]


def place(x: float, y: float, width: float, height: float) -> measure.Rect:
    """The middle of a tile, where neither rounding nor a neighbour shows."""
    margin_x, margin_y = width * WIDTH * 0.1, height * HEIGHT * 0.1
    return measure.Rect(
        round(x * WIDTH + margin_x),
        round(y * HEIGHT + margin_y),
        round(width * WIDTH - 2 * margin_x),
        round(height * HEIGHT - 2 * margin_y),
    )


GRID = {f"{row}{column}": place(column / 3, row / 3, 1 / 3, 1 / 3) for row in range(3) for column in range(3)}
FLOATING = {"large": place(0.1, 0.05, 0.8, 0.4)} | {
    f"small{i}": place(0.012 + 0.247 * (i % 4), 1 - 0.247 * (i // 4 + 1), 0.235, 0.235) for i in range(5)
}
VERTICAL = {"large": place(0, 0, 6 / 7, 1)} | {f"small{i}": place(6 / 7, i / 6, 1 / 7, 1 / 6) for i in range(6)}
CUSTOM = {"left": place(0, 0, 0.5, 0.5), "right": place(0.5, 0.5, 0.5, 0.5), "free": place(0, 0.5, 0.5, 0.5)}
REGIONS = [
    {"uid": "106", "x_axis": 0, "y_axis": 0, "width": 0.5, "height": 0.5},
    {"x_axis": 0.5, "y_axis": 0.5, "width": 0.5, "height": 0.5, "render_mode": 1},
]


def grid(order: Sequence[int]) -> Seen:
    return dict(zip(GRID, [*order, None, None, None], strict=True))


def seen(frame: VideoFrame, places: dict[str, measure.Rect]) -> Seen:
    """Who is in each place; "image" where the background image shows."""
    found: Seen = {}
    for name, rect in places.items():
        away = max(abs(a - b) for a, b in zip(measure.mean_colour(frame, rect), colour("#00a050"), strict=True))
        found[name] = "image" if away < 6 else measure.who(frame, UIDS, rect)
    return found


async def publish(running: Service, stack: contextlib.AsyncExitStack, uids: Sequence[int] = UIDS) -> None:
    library = Library(ROOT / "build" / "media")
    for uid in uids:
        codec: Any = "vp8" if uid % 2 else "h264"
        wanted = Publication(
            running.hub, running.credentials.app_id, "room", uid, video=codec, width=320, height=180, fps=15, bitrate_kbps=200
        )
        person = Publisher(wanted, library)
        stack.push_async_callback(person.stop)
        await person.start()


def start_request(image: str) -> dict[str, Any]:
    canvas = {"width": WIDTH, "height": HEIGHT, "fps": FPS, "bitrate": 1500, "mixedVideoLayout": 1, "backgroundImage": image}
    return {
        "recordingConfig": {"channelType": 0, "streamTypes": 2, "maxIdleTime": 30, "transcodingConfig": canvas},
        "storageConfig": folder_storage("bucket"),
    }


async def change(recording: RunningRecording, layout: dict[str, Any]) -> tuple[float, float]:
    """Update the layout; returns the Unix times between which the service took it."""
    before = time.time()
    await recording.command("updateLayout", layout)
    return before, time.time()


async def record(running: Service, server: ImageServer) -> tuple[RunningRecording, list[tuple[float, float]]]:
    back = {"backgroundImage": server.url("/back.png"), "defaultUserBackgroundImage": server.url("/missing.png")}
    layouts: list[dict[str, Any]] = [
        {"backgroundColor": "#202020"},
        {"mixedVideoLayout": 2, "maxResolutionUid": "103"},
        {"mixedVideoLayout": 3, "layoutConfig": REGIONS, **back},
        {"mixedVideoLayout": 1},
    ]
    async with running.client() as client:
        before = time.monotonic()
        recording = await client.start("room", 901, "mix", start_request(server.url("/never.png")))
        assert time.monotonic() - before < 4  # it does not wait for the image, for which 5 s are the limit
        times = []
        await asyncio.sleep(PERIOD + 2)
        for layout in layouts:
            times.append(await change(recording, layout))
            await asyncio.sleep(PERIOD)
        await recording.query()
        assert (await recording.stop())["uploadingStatus"] == "uploaded"
    return recording, times


@pytest.mark.timeout(300)
async def test_the_layout_goes_through_all_four_while_recording(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(image_server())
        server.answers["/never.png"] = [(60.0, b"HTTP/1.1 200 OK\r\n")]
        server.answers["/back.png"] = whole(png(GREEN))
        environment = {"AGENT__ALLOWED_NETWORKS": '["127.0.0.0/8"]', "RECORDING__SLICE_SECONDS": str(SLICE_SECONDS)}
        running = await stack.enter_async_context(service(tmp_path, **environment))
        await publish(running, stack)
        recording, times = await record(running, server)
        log = running.log
    playlist = tmp_path / "recordings" / "bucket" / f"{recording.sid}_room.m3u8"
    path = joined(playlist, tmp_path / "whole.ts")
    timed = list(measure.video_frames(path))
    times_of, frames = [time - timed[0][0] for time, _ in timed], [frame for _, frame in timed]

    def number(unix: float) -> int:
        """The first picture that belongs to this time or a later one. Some may have been left out before."""
        return bisect.bisect_left(times_of, unix - recording.slice_start_ms / 1000 - 1e-4)

    others = [uid for uid in UIDS if uid != 103]
    stages: list[tuple[dict[str, measure.Rect], Seen]] = [
        (GRID, grid(UIDS)),
        (FLOATING, dict(zip(FLOATING, UIDS, strict=True))),
        (VERTICAL, dict(zip(VERTICAL, [103, *others, None], strict=True))),
        (CUSTOM, {"left": 106, "right": 101, "free": "image"}),
    ]
    for (before, after), (earlier, later) in zip(times, pairwise(stages), strict=False):
        span = range(number(before - 2 / FPS), number(after + 2 / FPS) + 1)
        changed = next(n for n in span if seen(frames[n], earlier[0]) != earlier[1])
        assert seen(frames[changed - 1], earlier[0]) == earlier[1]
        if later[0] is CUSTOM:  # the image is on its way; those who were shown before are still shown
            assert seen(frames[changed], later[0]) | {"free": "image"} == later[1]
            assert seen(frames[number(after + 2)], later[0]) == later[1]
        else:
            assert seen(frames[changed], later[0]) == later[1]  # from one picture to the next, with nothing in between
    # Who had no place was not decoded, and comes back with a keyframe; nothing is left of the image.
    assert seen(frames[number(times[3][1] + 2)], GRID) == grid(UIDS)
    check_files(path, playlist)
    assert server.asked[0] == "/never.png"
    assert sorted(server.asked[1:]) == ["/back.png", "/missing.png"]
    assert re.findall(r"an image of the layout is left out url=\S+/(\w+).png why=(\w+)", log) == [
        ("never", "time"),
        ("missing", "download"),
    ]


@pytest.mark.timeout(120)
async def test_who_is_recorded_changes_while_recording(tmp_path: Path) -> None:
    """`update` takes 101 out of picture and sound for some seconds: seen and heard in the file, on one unbroken timeline."""
    async with contextlib.AsyncExitStack() as stack:
        running = await stack.enter_async_context(service(tmp_path, RECORDING__SLICE_SECONDS=str(SLICE_SECONDS)))
        await publish(running, stack, UIDS[:2])
        client = await stack.enter_async_context(running.client())
        request = start_request("")
        del request["recordingConfig"]["transcodingConfig"]["backgroundImage"]
        recording = await client.start("room", 901, "mix", request)
        await asyncio.sleep(PERIOD + 2)
        times = []
        for kind, uid in (("unSubscribe", "101"), ("subscribe", "#allstream#")):
            wanted = {"audioUidList": {f"{kind}AudioUids": [uid]}, "videoUidList": {f"{kind}VideoUids": [uid]}}
            await recording.command("update", {"streamSubscribe": wanted})
            times.append(time.time())
            await asyncio.sleep(PERIOD)
        await recording.query()
        await recording.stop()
    playlist = tmp_path / "recordings" / "bucket" / f"{recording.sid}_room.m3u8"
    path = joined(playlist, tmp_path / "whole.ts")
    timed = list(measure.video_frames(path))
    gone, back = (at - recording.slice_start_ms / 1000 + timed[0][0] for at in times)
    left = place(0, 0, 0.5, 1)

    def shown(start: float, end: float) -> set[int | None]:
        return {measure.who(frame, UIDS[:2], left) for at, frame in timed if start < at < end}

    assert shown(gone - 3, gone - 0.5) == {101}
    assert shown(gone + 0.5, back - 0.5) == {102}
    assert 101 in shown(back + 2, back + PERIOD)
    heard = measure.beep_onsets(path, tone_hz(101))
    assert [at for at in heard if gone + 0.2 < at < back - 0.2] == []
    assert len([at for at in heard if at < gone]) >= 3
    assert len([at for at in heard if at > back]) >= 2
    whole_time = measure.beep_onsets(path, tone_hz(102))
    assert max(b - a for a, b in pairwise(whole_time)) < 1.05
    assert silences(path) == ()
    assert "DISCONTINUITY" not in playlist.read_text().partition("#EXTINF")[2]


def check_files(path: Path, playlist: Path) -> None:
    """Slices as without any change, sound without a gap."""
    assert measure.decode_errors([path]) == []
    lengths = [float(length) for length in re.findall(r"#EXTINF:([\d.]+)", playlist.read_text())]
    assert len(lengths) >= 5
    assert lengths[:-1] == pytest.approx([SLICE_SECONDS] * (len(lengths) - 1), abs=0.001)
    assert "DISCONTINUITY" not in playlist.read_text().partition("#EXTINF")[2]
    assert silences(path) == ()
    zero = next(iter(measure.video_frames(path)))[0]
    seconds = sum(lengths)
    for uid in UIDS:
        heard = measure.beep_onsets(path, tone_hz(uid))
        assert len(heard) >= seconds - zero % 1 - 3
        assert max(b - a for a, b in pairwise(heard)) < 1.05
