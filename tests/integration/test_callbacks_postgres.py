"""Notices on PostgreSQL, where several control planes deliver at the same time."""

import asyncio
from collections import defaultdict
from pathlib import Path

import pytest

from tests.integration.test_callbacks_receiver import plane, said_by
from tests.integration.test_control_postgres import database_url, pytestmark, server
from tests.notices import Office, delivering, office
from tests.receiver import receiver

__all__ = ["database_url", "pytestmark", "server"]  # fixtures


async def test_three_control_planes_send_each_notice_once_and_in_order(tmp_path: Path, database_url: str) -> None:
    async with (
        receiver() as there,
        office(tmp_path, database_url=database_url) as one,
        office(tmp_path, database_url=database_url) as two,
        office(tmp_path, database_url=database_url) as three,
    ):
        app = await one.app(there.url("/hook"))
        sids = [await one.recording(app) for _ in range(20)]

        async def say(where: Office) -> list[str | None]:
            return [notice for sid in sids for notice in await where.say(app, sid, 40, 43)]

        async with delivering(one), delivering(two), delivering(three):
            said = [notice for part in await asyncio.gather(say(one), say(two), say(three)) for notice in part]
            await one.until_none_waits(50)
        received = await there.received()
    assert sorted(one.notice["noticeId"] for one in received) == sorted(map(str, said))
    sequences = defaultdict(list)
    for each in received:
        sequences[each.notice["sid"]].append(each.notice["payload"]["sequence"])
    assert sequences == {sid: list(range(6)) for sid in sids}


@pytest.mark.parametrize("dies", ["claimed", "sent"])
async def test_another_one_takes_over(tmp_path: Path, database_url: str, dies: str) -> None:
    async with receiver() as there, office(tmp_path, database_url=database_url) as post:
        app = await post.app(there.url("/hook"))
        sid = await post.recording(app)
        async with plane(tmp_path, app, sid, 3, dies, database_url) as process:
            assert not await said_by(process, "never said")
            await process.wait()
        async with delivering(post):
            await post.until_none_waits(50)
        said = [notice.notice_id for notice in await post.notices()]
        accepted = await there.accepted()
    assert {one.notice["noticeId"] for one in accepted} == set(said)
    assert len(accepted) == len(said) + (dies == "sent")
