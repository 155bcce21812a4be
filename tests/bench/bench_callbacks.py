"""How long an event takes to its receiver when 50 recordings tell theirs at the same time.

50 scripted workers tell what a recording with three people tells: in each step every one of them one event, all at once and each
in a transaction of its own. `/burst`: each tells everything, the next event as soon as the one before is committed. All are of
one app, and its receiver is another process.
"""

import asyncio
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from tests.bench import Result
from tests.notices import Office, delivering, office
from tests.receiver import Receiver, receiver

RECORDINGS = 50
RUNS = 3
EVENTS = (30, 40, 44, 43, 42, 44, 43, 4, 33, 44, 43, 41, 33, 31, 11)
STEP_SECONDS = 1.0


def callbacks() -> Iterable[Result]:
    for name, steps in (("callbacks", [(event,) for event in EVENTS]), ("callbacks/burst", [EVENTS])):
        measured = sorted(asyncio.run(_measured(steps)) for _ in range(RUNS))
        yield Result(name, round(measured[RUNS // 2], 3), "s, p99")


async def _measured(steps: Iterable[tuple[int, ...]]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        async with receiver() as there, office(Path(folder)) as post, delivering(post):
            told = await _told(post, there, steps)
            received = {one.notice["noticeId"]: one for one in reversed(await there.received())}  # the first attempt of each
    assert received.keys() == told.keys()
    late = sorted(received[notice].at - at for notice, at in told.items())
    return late[len(late) * 99 // 100]


async def _told(post: Office, there: Receiver, steps: Iterable[tuple[int, ...]]) -> dict[str, float]:
    """When each event was told, by its noticeId."""
    app = await post.app(there.url("/hook"))
    sids = [await post.recording(app) for _ in range(RECORDINGS)]
    told: dict[str, float] = {}

    async def tell(sid: str, events: tuple[int, ...]) -> None:
        for event_type in events:
            now = time.time()
            (notice,) = await post.say(app, sid, event_type)
            assert notice
            told[notice] = now

    for events in steps:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(STEP_SECONDS))
            for sid in sids:
                group.create_task(tell(sid, events))
    await post.until_none_waits(300)
    return told


BENCHES = {"callbacks": callbacks}
