"""Another place for a recording: nothing is stored between the node's look at what is stored and the answer with the place."""

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest
from pydantic import SecretStr

from recorder.agent import ownership
from recorder.agent.events import EventLog
from recorder.agent.node import Node
from recorder.agent.ownership import Ownership
from recorder.protocol import Claim, Claimed, Done, Refused
from recorder.spec import RecordingSpec, Storage


class Place:
    """What is asked of uploads and of a control plane, in the order in which it is; claims wait for `answers`."""

    def __init__(self) -> None:
        self.stored = False
        self.seen: list[str] = []
        self.answers: asyncio.Queue[Claimed | Refused] = asyncio.Queue()
        settings = SimpleNamespace(agent=SimpleNamespace(node="n"))
        node = cast(Node, SimpleNamespace(settings=settings, bus=self))  # no more of them is used
        self.ownership = Ownership("s", node, cast(EventLog, self), self._given, self._leave)
        self.epoch = 1

    async def claim(self, claim: Claim | object) -> Claimed | Refused:
        if not isinstance(claim, Claim):  # through the log of events
            claim = Claim(sid="s", node="n")
        self.seen.append(f"claim {'moves' if claim.moves else claim.resume}")
        return await self.answers.get()

    def _given(self, _former: RecordingSpec | None, spec: RecordingSpec) -> None:
        assert spec.storage
        self.seen.append(spec.storage.bucket)

    def _leave(self) -> bool:
        self.seen.append("leave")
        return not self.stored


def _answer(bucket: str) -> Claimed:
    storage = Storage(vendor=1, bucket=bucket, access_key=SecretStr("a"), secret_key=SecretStr("s"))
    spec = RecordingSpec(sid="s", app_id="a", channel="c", uid=1, mode="mix", storage=storage)
    return Claimed(sid="s", epoch=1, spec=spec.model_dump(mode="json"))


async def _claimed() -> Place:
    place = Place()
    place.answers.put_nowait(_answer("first"))
    await place.ownership.claim()
    assert place.seen == ["claim None", "first"]
    place.seen.clear()
    return place


async def test_agent_ownership_leaves_the_place_before_it_asks_for_another() -> None:
    place = await _claimed()
    async with asyncio.TaskGroup() as group:
        moving = group.create_task(place.ownership.move())
        renewing = group.create_task(place.ownership.renew_storage(moves=True))
        while len(place.seen) < 2:
            await asyncio.sleep(0)
        respawning = group.create_task(place.ownership.claim())  # which would bring the first place back
        await asyncio.sleep(0.01)
        assert place.seen == ["leave", "claim moves"]
        place.answers.put_nowait(_answer("second"))
        assert await renewing == Done()
        place.answers.put_nowait(_answer("second"))
        await respawning
        moving.cancel()
    assert place.seen == ["leave", "claim moves", "second", "claim None", "second"]


async def test_agent_ownership_stays_where_something_is_stored() -> None:
    place = await _claimed()
    place.stored = True
    async with asyncio.TaskGroup() as group:
        moving = group.create_task(place.ownership.move())
        answer = await place.ownership.renew_storage(moves=True)
        moving.cancel()
    assert isinstance(answer, Refused)
    assert answer.reason == "bad_request"
    assert place.seen == ["leave"]


async def test_agent_ownership_takes_the_place_that_it_is_told_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "COMMAND_SECONDS", 0.01)
    place = await _claimed()
    async with asyncio.TaskGroup() as group:
        moving = group.create_task(place.ownership.move())
        assert await place.ownership.renew_storage(moves=True) == Refused(reason="stale")
        place.answers.put_nowait(_answer("second"))
        while len(place.seen) < 3:
            await asyncio.sleep(0)
        moving.cancel()
    assert place.seen == ["leave", "claim moves", "second"]


async def test_agent_ownership_goes_on_when_it_is_turned_away() -> None:
    place = await _claimed()
    place.answers.put_nowait(Refused(reason="exiting"))
    async with asyncio.TaskGroup() as group:
        moving = group.create_task(place.ownership.move())
        assert await place.ownership.renew_storage(moves=True) == Refused(reason="exiting")
        moving.cancel()
    assert place.seen == ["leave", "claim moves", "first"]
