"""Receiving nine participants without decoding: CPU of the recorder's receive path against other receivers, and under loss.

Every receiver is a process of its own (`tests/bench/receive/`) that measures itself; they take turns in the same room.
"""

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from tests.bench import Result
from tests.bench.receive import Measured, Room, words
from tests.impair.impairment import Conditions
from tests.impair.proxy import ImpairedHub
from tests.live import ROOT, hub, publisher, settings

ROUNDS = 5
UIDS = range(101, 110)
FPS = 15
BITRATE_KBPS = 500
AUDIO_PACKETS_PER_SECOND = 50
WARM_SECONDS = 3
MEASURED_SECONDS = 10
_LIMIT_SECONDS = 90  # for one receiver
# Between two moments a frame or a packet of sound more or less of each track; the rest of the tolerance is for clocks.
_FRAMES_TOLERANCE = 0.01
LOSS = Conditions(loss=0.02, reorder=0.02, reorder_packets=3)
_SEED = 1

OURS = (sys.executable, "-m", "tests.bench.receive.ours")
AIORTC = (sys.executable, "-m", "tests.bench.receive.stock_aiortc")
WEBRTCBIN = ("/usr/bin/python3", "-m", "tests.bench.receive.webrtcbin")


class BenchFailed(Exception):
    """What was measured is not what the bench is about."""


@contextlib.asynccontextmanager
async def _room() -> AsyncIterator[str]:
    """Nine publishers in a channel; yields the hub's URL."""
    with tempfile.TemporaryDirectory() as folder:
        async with contextlib.AsyncExitStack() as stack:
            url = await stack.enter_async_context(hub(settings(Path(folder))))
            options = ("--count", str(len(UIDS)), "--video", "vp8", "--fps", str(FPS), "--bitrate", str(BITRATE_KBPS))
            await stack.enter_async_context(publisher(url, UIDS.start, *options))
            await asyncio.sleep(3)  # the others join
            yield url


async def _received(program: tuple[str, ...], url: str) -> Measured:
    """Run one receiver.

    Raises:
        BenchFailed: it failed, or did not get everything.
    """
    where = Room(url, "app/room", UIDS, WARM_SECONDS, MEASURED_SECONDS)
    process = await asyncio.create_subprocess_exec(*program, *words(where), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    try:
        async with asyncio.timeout(_LIMIT_SECONDS):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    name = program[-1].rpartition(".")[2]
    if process.returncode:
        raise BenchFailed(f"{name} ended with {process.returncode}: {errors.decode(errors='replace')[-500:]}")
    measured = Measured(**json.loads(output))
    _check(name, measured)
    return measured


def _check(name: str, measured: Measured) -> None:
    if measured.missing or measured.useless:
        raise BenchFailed(f"{name}: {measured.missing} packets are missing, {measured.useless} frames were not handed on")
    sent = len(UIDS) * (FPS + AUDIO_PACKETS_PER_SECOND) * measured.seconds
    if abs(measured.frames - sent) > _FRAMES_TOLERANCE * sent:
        raise BenchFailed(f"{name}: {measured.frames} frames of {sent:.0f} that were sent")


async def _in_turn(*programs: tuple[str, ...]) -> list[list[Measured]]:
    """Each receiver in each round; results by program."""
    rounds = []
    async with _room() as url:
        for _ in range(ROUNDS):
            rounds.append([await _received(program, url) for program in programs])
    return [list(of_program) for of_program in zip(*rounds, strict=True)]


def _compared(name: str, ours: list[Measured], theirs: list[Measured], peer: str) -> Result:
    pairs = [(a.cpu_ms_per_second, b.cpu_ms_per_second) for a, b in zip(ours, theirs, strict=True)]
    ratio = statistics.median(a / b for a, b in pairs)
    value, other = (statistics.median(side) for side in zip(*pairs, strict=True))
    return Result(name, round(value, 1), "CPU ms per s", f"{peer} {other:.1f}", round(ratio, 3))


def receive_9x360p15() -> Iterable[Result]:
    with_gstreamer = subprocess.run([*WEBRTCBIN, "--check"], cwd=ROOT, capture_output=True, text=True, check=False)
    missing = with_gstreamer.stderr.strip().splitlines()
    programs = (OURS, AIORTC) if missing else (OURS, AIORTC, WEBRTCBIN)
    ours, aiortc, *others = asyncio.run(_in_turn(*programs))
    yield _compared("receive_9x360p15", ours, aiortc, "aiortc, nothing decoded")
    each = statistics.median(m.cpu_ms_per_second * 1000 * m.seconds / m.packets for m in ours)
    yield Result("receive_9x360p15/packet", round(each, 1), "CPU µs per packet")
    if missing:
        raise BenchFailed(f"no line receive_9x360p15/webrtcbin: {missing[-1]}")
    yield _compared("receive_9x360p15/webrtcbin", ours, others[0], f"{others[0][0].note} webrtcbin, depayloading only")


def receive_loss() -> Iterable[Result]:
    """The clean run goes through the same relay, without impairment."""
    clean, lossy = asyncio.run(_clean_and_lossy())
    yield _compared("receive_loss", lossy, clean, "without loss")


async def _clean_and_lossy() -> tuple[list[Measured], list[Measured]]:
    clean: list[Measured] = []
    lossy: list[Measured] = []
    async with _room() as url:
        for number in range(ROUNDS):
            for conditions, found in ((Conditions(), clean), (LOSS, lossy)):
                async with ImpairedHub(url, seed=_SEED + number, media=conditions).running() as bad_network:
                    found.append(await _received(OURS, bad_network.url))
                    counters = bad_network.counters()
            if not counters.lost or not counters.reordered:
                raise BenchFailed("the relay lost or reordered nothing")
    return clean, lossy


BENCHES = {"receive_9x360p15": receive_9x360p15, "receive_loss": receive_loss}
