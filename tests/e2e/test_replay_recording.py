"""A service that plays a capture instead of joining channels, and keeps captures itself: through the HTTP API."""

import asyncio
from pathlib import Path

from recorder.rtp.capture import load
from recorder.tools import measure
from recorder.tools.api_client import folder_storage
from tests.corpus import nine, write
from tests.e2e import requests
from tests.e2e.playlist import joined
from tests.service import service


async def test_a_service_records_a_capture_and_captures_its_recording(tmp_path: Path) -> None:
    capture = await asyncio.to_thread(write, nine(seconds=8, people=2), tmp_path / "capture")
    async with service(tmp_path / "data", "--capture", str(tmp_path / "captures"), AGENT__REPLAY=str(capture.folder)) as running:
        async with running.client() as client:
            recording = await client.start("room", 901, "mix", requests.mix(folder_storage("bucket", "mix"), mp4=False))
            await asyncio.sleep(4)
            assert (await recording.stop())["uploadingStatus"] == "uploaded"
    (playlist,) = (tmp_path / "data" / "recordings" / "bucket" / "mix").glob("*.m3u8")
    whole = joined(playlist, tmp_path / "mix.ts")
    assert measure.decode_errors([whole]) == []
    assert measure.probe(whole).duration > 3
    (folder,) = (tmp_path / "captures").iterdir()
    assert folder.name.startswith(recording.sid)
    happenings = load(folder).description.happenings
    assert [happening.uid for happening in happenings if happening.what == "joined"] == [101, 102]
