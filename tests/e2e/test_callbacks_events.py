"""Whole recordings through the HTTP API, with a strict receiver of their callbacks: nothing it gets may be wrong, missing or late."""

import asyncio
import contextlib
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from recorder.tools.api_client import ApiClient, ApiError, folder_storage
from recorder.tools.publish import Publication, Publisher
from recorder.tools.publish_media import Library
from tests.e2e import requests
from tests.e2e.test_process_death import Serve
from tests.live import ROOT, publisher
from tests.notices import LOOPBACK
from tests.strict_receiver import StrictReceiver, strict_receiver

SETTINGS = {"CALLBACKS__ALLOW_HTTP": "true", "CALLBACKS__ALLOWED_NETWORKS": json.dumps(LOOPBACK)}


@contextlib.asynccontextmanager
async def told(tmp_path: Path, *alarms: int, **settings: str) -> AsyncIterator[tuple[Serve, ApiClient, StrictReceiver]]:
    """The service, a client, and the receiver of its app's notices; with `alarms` also of these."""
    serve = Serve(tmp_path / "data", environment=SETTINGS | settings)
    async with strict_receiver() as there, serve.running(), serve.client() as client:
        await subscribe(client, serve, there, *alarms)
        yield serve, client, there


async def subscribe(client: ApiClient, serve: Serve, there: StrictReceiver, *alarms: int, app: str | None = None) -> None:
    """Of an app of the client's, which is the deployment's first one unless another is named."""
    events = [1, 2, 3, 4, 11, 12, 30, 31, 32, 33, 40, 41, 42, 43, 44, 45, *alarms] if alarms else None
    url = f"http://127.0.0.1:{serve.ports[0]}/v1/ext/apps/{app or serve.credentials.app_id}/callbacks"
    answer = await client.http.put(url, json={"url": there.url, "events": events})
    assert answer.status_code == httpx.codes.OK, answer.text
    await there.expect(answer.json()["secret"])


@pytest.mark.timeout(180)
async def test_a_composite_tells_all_its_events(tmp_path: Path) -> None:
    async with told(tmp_path) as (serve, client, there), publisher(serve.hub, 101, app=serve.credentials.app_id):
        recording = await client.start("room", 901, "mix", requests.mix(folder_storage("bucket", "a", "b"), mp4=True))
        with pytest.raises(ApiError, match="53"):
            await client.start("room", 901, "mix", requests.mix(folder_storage("bucket"), mp4=False))
        await asyncio.sleep(3)
        async with publisher(serve.hub, 102, app=serve.credentials.app_id):
            await asyncio.sleep(62)  # a minute, for the first report of progress
        assert (await recording.stop())["uploadingStatus"] == "uploaded"
        report = await there.until_exit(recording.sid)
    sid = recording.sid
    assert report.problems == []
    kinds = Counter(notice.eventType for notice in report.of(sid))
    assert kinds.keys() == {3, 4, 11, 30, 31, 33, 40, 41, 42, 43, 44}
    assert {notice.payload.serviceScene for notice in report.of(sid)} == {"rtc_record"}
    assert {notice.payload.uid for notice in report.of(sid)} == {"901"}
    (refused,) = report.details(sid, 3)
    assert refused["recordingMode"] == 1
    assert refused["fileList"] == f"a/b/{sid}_room.m3u8"
    assert report.details(sid, 4) == [{"msgName": "cloud_recording_file_infos", "fileList": f"a/b/{sid}_room.m3u8"}]
    progress = [details["progress"] for details in report.details(sid, 33)]
    assert len(progress) == 2
    assert 5000 < progress[0] <= 9999
    assert progress[1] == 10_000
    streams = Counter((details["streamUid"], details["state"]) for details in report.details(sid, 43))
    assert streams == Counter((uid, state) for uid in ("0", "101", "102") for state in (0, 1))
    assert streams == Counter((details["streamUid"], details["state"]) for details in report.details(sid, 44))
    (begun,) = report.details(sid, 42)
    assert (begun["mixedAllUser"], begun["streamUid"], begun["trackType"]) == (True, "0", "audio_and_video")
    assert begun["startUtcMs"] == begun["discontinueUtcMs"]
    assert report.details(sid, 41)[0]["leaveCode"] == 24
    (uploaded,) = report.details(sid, 31)
    assert [one["fileName"] for one in uploaded["fileList"]] == [f"a/b/{sid}_room_0.mp4", f"a/b/{sid}_room.m3u8"]
    assert all(one["mixedAllUser"] and one["isPlayable"] and one["uid"] == "0" for one in uploaded["fileList"])
    assert {one["sliceStartTime"] for one in uploaded["fileList"]} == {begun["startUtcMs"]}
    assert report.details(sid, 11)[0]["exitStatus"] == 0


@pytest.mark.timeout(180)
async def test_individual_recordings_tell_all_their_events(tmp_path: Path) -> None:
    """With screenshots, a mute, a killed worker; and one of screenshots alone, and one in which nobody sends anything."""
    async with told(tmp_path) as (serve, client, there):
        app = serve.credentials.app_id
        body = requests.individual(folder_storage("bucket"), idle_seconds=5)
        shots = {"snapshotConfig": {"captureInterval": 1, "fileType": ["jpg"]}}
        empty = await client.start("nobody", 905, "individual", body)
        first = Publisher(Publication(serve.hub, app, "room", 101), Library(ROOT / "build" / "media"))
        try:
            await first.start()
            recording = await client.start("room", 901, "individual", body | shots)
            only = {**body, **shots}
            del only["recordingFileConfig"]
            alone = await client.start("room", 902, "individual", only)
            async with publisher(serve.hub, 102, app=app):
                await asyncio.sleep(4)
                await first.mute(audio=True)
                await asyncio.sleep(2)
                await first.mute(audio=False)
                await asyncio.sleep(3)
                os.kill(serve.worker(recording.sid), signal.SIGKILL)
                await asyncio.sleep(8)
                await alone.stop()
        finally:
            await first.stop()
        await recording.gone(60)  # nobody is there any more
        reports = [await there.until_exit(one.sid) for one in (empty, alone, recording)]
        report = reports[-1]
    assert report.problems == []
    assert [notice.eventType for notice in report.of(empty.sid)] == [30, 40, 41, 11]
    assert report.details(empty.sid, 41, 11) == [
        {"msgName": "recorder_leave", "leaveCode": 4},
        {"msgName": "session_exit", "exitStatus": 0},
    ]

    kinds = Counter(notice.eventType for notice in report.of(alone.sid))
    assert kinds.keys() == {11, 30, 31, 40, 41, 44, 45}
    assert {notice.payload.serviceScene for notice in report.of(alone.sid)} == {"rtc_snapshot"}

    sid = recording.sid
    bucket = serve.data / "recordings" / "bucket"
    kinds = Counter(notice.eventType for notice in report.of(sid))
    assert kinds.keys() == {4, 11, 12, 30, 31, 33, 40, 41, 42, 43, 44, 45}
    assert kinds[40] == 2
    assert kinds[12] == 1
    assert {details["fileList"] for details in report.details(sid, 4)} == {path.name for path in bucket.glob(f"{sid}*.m3u8")}
    assert {details["fileName"] for details in report.details(sid, 45)} == {path.name for path in bucket.glob(f"{sid}*.jpg")}
    tracks = [(details["streamUid"], details["trackType"]) for details in report.details(sid, 42)]
    assert Counter(tracks) == Counter({(uid, kind): 2 for uid in ("101", "102") for kind in ("audio", "video")})
    lost = [details["startUtcMs"] - details["discontinueUtcMs"] for details in report.details(sid, 42)]
    assert lost[:4] == [0] * 4
    assert all(100 < gap < 8000 for gap in lost[4:])
    assert Counter((details["streamUid"], details["state"]) for details in report.details(sid, 43))["101", 0] == 3  # a mute and a kill
    new_uid = report.details(sid, 12)[0]["newUid"]
    assert new_uid != 901
    assert [notice.payload.uid for notice in report.of(sid)][-1] == str(new_uid)
    assert report.details(sid, 41)[0]["leaveCode"] == 4
    (uploaded,) = report.details(sid, 31)
    assert {one["fileName"] for one in uploaded["fileList"]} == {path.name for path in bucket.glob(f"{sid}*.m3u8")}
    assert not any(one["mixedAllUser"] for one in uploaded["fileList"])
