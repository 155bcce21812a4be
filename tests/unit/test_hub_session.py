"""When a session of the hub ends by itself."""

import asyncio
import time
from types import SimpleNamespace
from typing import cast

import pytest
from aiortc import RTCPeerConnection

from recorder.hub import session
from recorder.hub.negotiation import Offer
from recorder.hub.session import Session
from recorder.rtp.tap import MediaTap


class Idle:
    """The media side of a session in which nothing happens."""

    def connected(self) -> None: ...

    def beat(self, now_ns: int) -> str | None:
        return None

    def ended(self) -> None: ...


class Clocks:
    """Stands for the module `time`; somebody sets the wall clock back by an hour, and real time goes on."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.set_back = 0.0

    def time(self) -> float:
        return 1_800_000_000 + self.passed - self.set_back

    def monotonic(self) -> float:
        return 500.0 + self.passed

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()


@pytest.mark.parametrize("set_back", [0.0, 3600.0, -3600.0])
async def test_a_token_ends_in_its_time_whatever_the_wall_clock_says(monkeypatch: pytest.MonkeyPatch, set_back: float) -> None:
    clocks = Clocks()
    monkeypatch.setattr(session, "time", clocks)
    monkeypatch.setattr(session, "BEAT_SECONDS", 0.001)
    of = Session(cast(RTCPeerConnection, None), cast(Offer, SimpleNamespace(candidates=0)), expires_at=clocks.time() + 60)
    of.tap = cast(MediaTap, SimpleNamespace(closed=asyncio.Event()))
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(of._serve(Idle()))
        clocks.set_back = set_back
        clocks.passed = 59.9
        await asyncio.sleep(0.05)
        assert not of.is_over
        clocks.passed = 60.0
        async with asyncio.timeout(5):
            await serving
    assert of.is_over
