"""What an operator sees of a real `serve`: the agent's work in the metrics of the one probe, and logs a machine can read."""

import asyncio
import json
import re
from pathlib import Path

import httpx
import pytest

from recorder.rtp.negotiation import use_addresses
from recorder.tools.api_client import folder_storage
from recorder.tools.publish import Publication, Publisher
from tests.e2e import requests
from tests.service import Service, service

ANNOUNCED = re.compile(r"(API|probes|channel hub|credentials|ready;) .*")  # on stdout, which the log of the test has too


@pytest.mark.timeout(120)
async def test_metrics_and_logs_of_a_recording(tmp_path: Path) -> None:
    async with service(tmp_path, LOG_JSON="true", LOG_LEVEL="DEBUG") as running, running.client() as client:
        wanted = Publication(running.hub, running.credentials.app_id, "room", 101, video=None)
        use_addresses(("127.0.0.1",))
        person = Publisher(wanted)
        await person.start()
        try:
            recording = await client.start("room", 901, "mix", requests.mix(folder_storage("bucket"), mp4=False))
            await asyncio.sleep(3)
            assert (await recording.stop())["uploadingStatus"] == "uploaded"
        finally:
            await person.stop()
        shown = await _metrics(running)
    assert shown["recorder_slices_committed_total"] == shown['recorder_slices_stored_total{store="customer"}'] > 0
    assert 0 < shown["recorder_commit_seconds_count"] <= shown["recorder_slices_committed_total"]
    assert shown["recorder_upload_seconds_count"] == shown["recorder_slices_committed_total"]
    assert shown["recorder_upload_seconds_sum"] > 0
    lines = [line for line in running.log.splitlines() if not ANNOUNCED.fullmatch(line)]
    records = [json.loads(line) for line in lines]
    assert {"recorder.hub.server", "api.ledger", "recorder.worker.main"} <= {record["logger"] for record in records}
    assert "?uid=" not in running.log


async def _metrics(running: Service) -> dict[str, float]:
    announced = re.search(r"^probes +(\S+)/readyz$", running.log, flags=re.M)
    assert announced
    async with httpx.AsyncClient(trust_env=False) as http:
        text = (await http.get(f"{announced[1]}/metrics")).text
    rows = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in rows}
