"""Processes of the demo: each writes into a log of its own and ends with the block that started it."""

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

START_SECONDS: Final = 40.0
GRACE_SECONDS: Final = 10.0
# Below those that Linux gives to outgoing connections, one of which could take the port before its server does.
PORTS = range(12_000, 32_000)


class DemoError(Exception):
    """The demo could not be run; the message says where it stopped."""


@contextlib.asynccontextmanager
async def spawned(log: Path, *argv: str, environment: dict[str, str] | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
    """A `cloud-recorder` process that writes into `log` and ends with the block."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CLOUD_RECORDER_")}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cli.main", "--bound-to", str(os.getpid()), *argv),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=clean | (environment or {}) | {"PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # Ctrl-C reaches the demo alone, which ends its processes in order
        )
    try:
        yield process
    finally:
        await end(process)


async def end(process: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GRACE_SECONDS):
                    await process.wait()


async def until_said(process: asyncio.subprocess.Process, log: Path, words: str, who: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while words not in log.read_text(errors="replace"):
        if process.returncode is not None or time.monotonic() > deadline:
            said = " | ".join(log.read_text(errors="replace").splitlines()[-5:])
            raise DemoError(f"{who} did not come up; {log} ends with: {said}")
        await asyncio.sleep(0.05)


def free_ports(count: int) -> list[int]:
    """Different ports of loopback on which nobody listens now."""
    ports: list[int] = []
    with contextlib.ExitStack() as held:
        for port in random.SystemRandom().sample(PORTS, len(PORTS)):
            if len(ports) == count:
                return ports
            with contextlib.suppress(OSError):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
                ports.append(port)
    raise DemoError("no port of this machine is free")
