"""What a recording uses: measured by a real worker from real publishers, and kept by the whole service when a worker is killed."""

import asyncio
import contextlib
import itertools
import os
import re
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

from recorder.protocol import Metered, Subscribe
from recorder.settings import Usage
from recorder.spec import RecordingSpec, Subscription, UidRule
from recorder.tools.api_client import folder_storage
from recorder.tools.publish import Publication, Publisher
from recorder.tools.publish_media import Library
from recorder.usage import Category, category_of
from tests.e2e import requests
from tests.live import ROOT, TestedWorker, hub, publisher, settings
from tests.service import Service, service

SID = "c0ffee" * 5 + "00"
REPORT_SECONDS = 1.0
FIRST_PICTURE_SECONDS = 0.7
"""A picture counts from the first keyframe on; so long may it take to be asked for, sent, and decoded."""
LARGE, SMALL = (1280, 720), (320, 180)


class Hand:
    """Measures by hand: what is sent from which moment on."""

    def __init__(self) -> None:
        self._told: list[tuple[float, int, int]] = []

    def sends(self, uid: int, size: tuple[int, int] | None) -> None:
        self._told.append((time.monotonic(), uid, size[0] * size[1] if size else 0))

    def seconds(self, end: float, wait: float) -> dict[Category, float]:
        """Seconds of each category when every picture is seen so many seconds after it is sent."""
        areas: dict[int, int] = {}
        found: dict[Category, float] = {}
        told = sorted((at + (wait if area else 0), uid, area) for at, uid, area in self._told)
        since = self._told[0][0]
        for at, uid, area in (*told, (end, 0, 0)):
            category = category_of(sum(areas.values()))
            found[category] = found.get(category, 0) + at - since
            areas[uid], since = area, at
        return found


def _metered(worker: TestedWorker) -> list[dict[Category, float]]:
    """Seconds in each report; the test is taken for shorter than a day and may be at midnight."""
    found = []
    for body in (report.body for report in worker.reports if isinstance(report.body, Metered)):
        total: dict[Category, float] = {}
        for used in body.used:
            total[used.category] = total.get(used.category, 0) + used.milliseconds / 1000
        found.append(total)
    return found


@contextlib.asynccontextmanager
async def _person(url: str, uid: int, size: tuple[int, int], library: Library) -> AsyncIterator[Publisher]:
    person = Publisher(Publication(url, "app", "room", uid, width=size[0], height=size[1], fps=15, bitrate_kbps=300), library)
    try:
        await person.start()
        yield person
    finally:
        await person.stop()


async def test_people_switch_their_cameras(tmp_path: Path) -> None:
    at = settings(tmp_path).model_copy(update={"usage": Usage(report_seconds=REPORT_SECONDS)})
    spec = RecordingSpec.model_validate({"sid": SID, "app_id": "app", "channel": "room", "uid": 900, "mode": "individual"})
    library = Library(ROOT / "build" / "media")
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(hub(at))
        large = await stack.enter_async_context(_person(url, 101, LARGE, library))
        worker = await stack.enter_async_context(TestedWorker(at, spec).running())
        await worker.until(lambda: "ready" in worker.phases())
        hand = Hand()
        hand.sends(101, LARGE)
        await asyncio.sleep(2)
        await stack.enter_async_context(_person(url, 102, SMALL, library))
        hand.sends(102, SMALL)
        await asyncio.sleep(2)
        await worker.tell(Subscribe(sid=SID, subscription=Subscription(video=UidRule(kind="except", uids=frozenset({102})))))
        hand.sends(102, None)
        await asyncio.sleep(0.5)
        await large.mute(video=True)
        hand.sends(101, None)
        await asyncio.sleep(4.5)
        await large.mute(video=False)
        hand.sends(101, LARGE)
        await asyncio.sleep(1)
        end = time.monotonic()
        await worker.stop()
        assert worker.process
        *running, last = _metered(worker)
        soonest, latest = hand.seconds(end, 0), hand.seconds(end, FIRST_PICTURE_SECONDS)
        assert set(last) == set(soonest) == {"audio", "hd", "fhd"}
        for category, seconds in last.items():
            least, most = sorted((soonest[category], latest[category]))
            assert least - 0.5 <= seconds <= most + 0.5, (last, soonest, latest)
        assert abs(sum(last.values()) - sum(soonest.values())) <= 0.5
        assert len(running) >= 8
        for before, after in itertools.pairwise((*running, last)):
            assert all(after[category] >= seconds > 0 for category, seconds in before.items())


async def test_a_killed_worker_loses_little_and_counts_nothing_twice(tmp_path: Path) -> None:
    """The whole service. What is kept when the worker dies stays as it is; the next one adds what it measures itself."""
    async with service(tmp_path / "data", USAGE__REPORT_SECONDS=str(REPORT_SECONDS)) as at, at.client() as client:
        async with publisher(at.hub, 101, app=at.credentials.app_id):
            recording = await client.start("room", 901, "mix", requests.mix(folder_storage("bucket"), mp4=False))
            counted, seen = await _until_counted(at, recording.sid, 4)
            await asyncio.sleep(0.7 * REPORT_SECONDS)
            os.kill(_worker(at, recording.sid), signal.SIGKILL)
            lived = counted + time.monotonic() - seen
            async with asyncio.timeout(15):
                while at.log.count("worker started") < 2:
                    await asyncio.sleep(0.05)
            kept = _kept(at.data, recording.sid)
            assert {epoch for epoch, _, _ in kept} == {1}
            assert lived - REPORT_SECONDS - 1 <= sum(kept.values()) <= lived + 0.5
            counted, seen = await _until_counted(at, recording.sid, sum(kept.values()) + 3)
            expected = counted + time.monotonic() - seen
            await recording.stop()
        rows = (await client.call(f"{at.url}/v1/ext/usage?groupBy=session"))["rows"]
    assert [(row["sid"], row["cname"], row["sessions"]) for row in rows] == [(recording.sid, "room", 1)]
    after = _kept(at.data, recording.sid)
    assert all(after[row] == seconds for row, seconds in kept.items())
    assert {epoch for epoch, _, _ in after} == {1, 2}
    total = sum(rows[0]["seconds"].values())
    assert abs(total - sum(after.values())) < 0.001
    assert abs(total - expected) <= 1
    assert rows[0]["seconds"]["hd"] >= 0.7 * total


def _kept(data: Path, sid: str) -> dict[tuple[int, str, str], float]:
    """Seconds in the database, by epoch, day and category."""
    with contextlib.closing(sqlite3.connect(f"file:{data / 'recorder.db'}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT epoch, day, category, milliseconds FROM usage WHERE sid = ?", (sid,)).fetchall()
    return {(epoch, day, category): milliseconds / 1000 for epoch, day, category, milliseconds in rows}


async def _until_counted(at: Service, sid: str, least: float) -> tuple[float, float]:
    """Wait until so many seconds are kept; returns how many there are, and when they were seen first."""
    async with asyncio.timeout(25):
        while (seconds := sum(_kept(at.data, sid).values())) < least:
            await asyncio.sleep(0.02)
    return seconds, time.monotonic()


def _worker(at: Service, sid: str) -> int:
    return int(re.findall(rf"worker started pid=(\d+).*sid={sid}", at.log)[-1])
