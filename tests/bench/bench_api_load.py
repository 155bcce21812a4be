"""The API under 200 calls a second beside twenty running recordings of sound: how long callers wait, and that the media does not suffer."""

import asyncio
import contextlib
import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import cycle, islice
from pathlib import Path

from recorder.tools.api_client import ApiClient, RunningRecording, folder_storage
from tests.bench import Result
from tests.bench.composing import SMALL, Room
from tests.bench.load import Answer, Load, mixed
from tests.service import Service, service

RECORDINGS = 20
PER_SECOND = 200
SECONDS = 60
SHARES = {"query": 80, "acquire": 10, "update": 5, "updateLayout": 5}  # of a hundred calls
CONNECTIONS = 50
ROOM = Room(3, SMALL, None, seconds=32)
_BUCKET = "bench"
_RECORDING_SECONDS = 60.0
_LEAST_RECORDED_MS = SECONDS * 1000


class LoadFailed(Exception):
    """A call was not answered with success, or the recordings suffered."""


async def _started(client: ApiClient, number: int) -> RunningRecording:
    request = {
        "recordingConfig": {"channelType": 0, "streamTypes": 0, "maxIdleTime": 300},
        "storageConfig": folder_storage(_BUCKET),
    }
    recording = await client.start(f"room{number}", 900 + number, "mix", request)
    async with asyncio.timeout(_RECORDING_SECONDS):
        while (await recording.query())["status"] != 5:
            await asyncio.sleep(0.2)
    return recording


def _calls(load: Load, recordings: list[RunningRecording]) -> tuple[list[str], list[bytes]]:
    def of(call: str, request: Mapping[str, object]) -> Iterable[bytes]:
        return cycle(load.request(f"{one.path}/{call}", {**one.envelope, "clientRequest": request}) for one in recordings)

    everybody = {"streamSubscribe": {"audioUidList": {"subscribeAudioUids": ["#allstream#"]}}}
    sources = {
        "query": cycle(load.request(f"{one.path}/query") for one in recordings),
        "acquire": cycle([load.request("acquire", {"cname": "another", "uid": "1", "clientRequest": {}})]),
        "update": of("update", everybody),
        "updateLayout": of("updateLayout", {"mixedVideoLayout": 1}),
    }
    names, requests = mixed({name: (SHARES[name] * PER_SECOND * SECONDS // 100, source) for name, source in sources.items()})
    return names, requests


async def _measure(capture: Path) -> tuple[list[str], list[Answer], list[str]]:
    """Names of the calls, their answers, and what is wrong with the media."""
    options = {
        "API__REQUESTS_PER_SECOND": "10000",
        "AGENT__REPLAY": str(capture),
        "LOG_JSON": "true",
    }
    with tempfile.TemporaryDirectory() as folder:
        async with contextlib.AsyncExitStack() as stack:
            running = await stack.enter_async_context(service(Path(folder), **options))
            client = await stack.enter_async_context(running.client())
            recordings = [await _started(client, number) for number in range(RECORDINGS)]
            load = Load(running.url, running.credentials, CONNECTIONS)
            names, requests = _calls(load, recordings)
            answers = await load.run(requests, PER_SECOND)
            await asyncio.gather(*(recording.stop() for recording in recordings))
            suffered = _suffered(running, recordings)
    return names, answers, suffered


def _suffered(running: Service, recordings: list[RunningRecording]) -> list[str]:
    """What is missing in recordings, or was late."""
    suffered = []
    for recording in recordings:
        timeline = json.loads(
            (running.data / "recordings" / _BUCKET / f"{recording.sid}_{recording.envelope['cname']}_timeline.json").read_text()
        )
        (media,) = timeline["media"]
        lost = sum(track["packets_lost"] for track in timeline["tracks"])
        if media["gaps"] or lost or len(timeline["workers"]) != 1 or media["to_ms"] - media["from_ms"] < _LEAST_RECORDED_MS:
            suffered.append(f"{media}, {lost} packets lost, {len(timeline['workers'])} workers")
    lines = [json.loads(line) for line in running.log.splitlines() if line.startswith("{")]
    ended = [line for line in lines if line.get("message") == "media thread ended"]
    ticks, late = (sum(line[name] for line in ended) for name in ("advances", "late"))
    if len(ended) != RECORDINGS or late:
        suffered.append(f"{late} of {ticks} ticks of {len(ended)} recordings were late")
    return suffered


def _p99_ms(answers: Iterable[Answer]) -> float:
    return round(statistics.quantiles([answer.seconds * 1000 for answer in answers], n=100)[98], 1)


def api_load() -> Iterable[Result]:
    names, answers, suffered = asyncio.run(_measure(ROOM.capture().folder))
    wrong = [(name, answer.status, answer.body) for name, answer in zip(names, answers, strict=True) if answer.status != 200]
    if wrong:
        raise LoadFailed(f"{len(wrong)} calls went wrong: {list(islice(wrong, 3))}")
    yield Result("api_load", _p99_ms(answers), f"ms p99 at {PER_SECOND} calls/s beside {RECORDINGS} recordings")
    by_name: dict[str, list[Answer]] = defaultdict(list)
    for name, answer in zip(names, answers, strict=True):
        by_name[name].append(answer)
    for name, ones in by_name.items():
        yield Result(f"api_load/{name}", _p99_ms(ones), "ms p99")
    if suffered:
        raise LoadFailed(f"the media has suffered: {suffered[:3]}")


BENCHES = {"api_load": api_load}
