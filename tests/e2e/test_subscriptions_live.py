"""Ten people, whose audio and video lists are changed five times while they are recorded one by one: through the HTTP API."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import av
import pytest

from recorder.tools import measure
from recorder.tools.api_client import folder_storage
from recorder.tools.content import tone_hz
from recorder.tools.publish import Publication, Publisher
from recorder.tools.publish_media import Library
from tests.e2e import requests
from tests.e2e.playlist import entries
from tests.e2e.test_individual_everybody import unix
from tests.live import ROOT
from tests.service import Service, service

UIDS = range(101, 111)
ALL = frozenset(UIDS)
PERIOD, SETTLING = 5.0, 2.0  # seconds: of each subscription, and until it has taken effect (a beep comes once a second)

Lists = dict[str, Any]


def _lists(**lists: list[str]) -> Lists:
    return lists


CHANGES: list[tuple[Lists, Lists, frozenset[int], frozenset[int]]] = [
    (_lists(subscribeAudioUids=["101", "102"]), _lists(subscribeVideoUids=["103"]), frozenset({101, 102}), frozenset({103})),
    (_lists(unSubscribeAudioUids=["101"]), _lists(unsubscribeVideoUids=["103", "104"]), ALL - {101}, ALL - {103, 104}),
    (_lists(subscribeAudioUids=["#allstream#"]), {}, ALL, frozenset()),  # video is not named: nobody's
    ({}, _lists(subscribeVideoUids=["#allstream#"]), frozenset(), ALL),
    (_lists(subscribeAudioUids=["#allstream#"]), _lists(subscribeVideoUids=["#allstream#"]), ALL, ALL),
]


@contextlib.asynccontextmanager
async def _people(running: Service) -> AsyncIterator[None]:
    library = Library(ROOT / "build" / "media")
    async with contextlib.AsyncExitStack() as stack:
        for uid in UIDS:
            where = Publication(running.hub, running.credentials.app_id, "room", uid, width=160, height=90, fps=15, bitrate_kbps=100)
            person = Publisher(where, library)
            stack.push_async_callback(person.stop)
            await person.start()
        yield


@pytest.mark.timeout(180)
async def test_whoever_is_on_the_lists_is_recorded(tmp_path: Path) -> None:
    times: list[float] = []
    async with service(tmp_path) as running, running.client() as client, _people(running):
        recording = await client.start("room", 901, "individual", requests.individual(folder_storage("bucket")))
        await asyncio.sleep(PERIOD)
        for audio, video, _, _ in CHANGES:
            subscribe = {key: value for key, value in (("audioUidList", audio), ("videoUidList", video)) if value}
            await recording.command("update", {"streamSubscribe": subscribe})
            times.append(time.time())
            await asyncio.sleep(PERIOD)
        times.append(time.time())
        assert (await recording.stop())["uploadingStatus"] == "uploaded"
    stored = tmp_path / "recordings" / "bucket"
    for uid in UIDS:
        pictures = _pictures(next(stored.glob(f"*_uid_s_{uid}__uid_e_video.m3u8")))
        beeps = _beeps(next(stored.glob(f"*_uid_s_{uid}__uid_e_audio.m3u8")), uid)
        for (_, _, heard, seen), begin, end in zip(CHANGES, times, times[1:], strict=False):
            assert any(begin + SETTLING < at < end - 0.3 for at in pictures) == (uid in seen), (uid, begin - times[0])
            assert any(begin + SETTLING < at < end - 0.3 for at in beeps) == (uid in heard), (uid, begin - times[0])


def _pictures(playlist: Path) -> list[float]:
    """When the pictures were taken, Unix time."""
    found = []
    for path in entries(playlist):
        with av.open(str(path)) as container:
            times = [float(packet.pts * packet.time_base) for packet in container.demux() if packet.size and packet.pts is not None]
        found += [unix(path.stem[-17:]) + at - min(times) for at in times]
    return found


def _beeps(playlist: Path, uid: int) -> list[float]:
    found = []
    for path in entries(playlist):
        first, samples = measure.samples_of(path)
        del first
        found += [unix(path.stem[-17:]) + onset for onset in measure.onsets(samples, tone_hz(uid))]
    return found
