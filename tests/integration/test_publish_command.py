"""`cloud-recorder publish` and `cloud-recorder hub` as processes."""

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import httpx
import pytest

from tests.integration.hub_room import APP, CHANNEL, Roster, running_hub, until

SMALL = ("--size", "160x90", "--fps", "15", "--bitrate", "200")


async def run(*arguments: str, **environment: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli.main", *arguments, stdout=PIPE, stderr=PIPE, env=os.environ | environment
    )


async def ended(process: Process, seconds: float = 20) -> tuple[int | None, str]:
    async with asyncio.timeout(seconds):
        output, errors = await process.communicate()
    return process.returncode, (output + errors).decode()


def publish(hub: str, uid: int, *options: str) -> tuple[str, ...]:
    return ("publish", "--hub", hub, "--app", APP, "--channel", CHANNEL, "--uid", str(uid), *options)


async def test_participants_come_and_go(tmp_path: Path) -> None:
    async with running_hub() as hub, Roster().watching(hub) as roster:
        process = await run(*publish(hub, 31, "--count", "2", "--seconds", "1.5", "--cache", str(tmp_path / "media"), *SMALL))
        await until(lambda: set(roster.people) == {31, 32}, 20)
        assert {person.video for person in roster.people.values()} == {"h264"}
        assert await ended(process) == (0, "publishing as 31\npublishing as 32\n")
        await until(lambda: not roster.people)
        assert len(list((tmp_path / "media").iterdir())) == 4  # picture and sound of each


async def test_signal_ends_it_well(tmp_path: Path) -> None:
    async with running_hub() as hub, Roster().watching(hub) as roster:
        process = await run(*publish(hub, 31, "--video", "none"))
        await until(lambda: 31 in roster.people, 20)
        assert roster.people[31].video is None
        process.send_signal(signal.SIGTERM)
        assert (await ended(process))[0] == 0
        await until(lambda: not roster.people)


async def test_refusal_is_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
    code, text = await ended(await run(*publish(nobody, 31, "--video", "none")))
    assert (code, text) == (1, "Error: no connection to the hub: ConnectError\n")
    token = tmp_path / "token"
    token.write_text("007secret\n")
    code, text = await ended(await run(*publish(nobody, 31, "--video", "none", "--audio", "none", "--token-file", str(token))))
    assert code == 2
    assert "nothing to publish" in text
    assert "secret" not in text


async def test_kicked_participant_ends_with_an_error() -> None:
    async with running_hub() as hub, Roster().watching(hub) as roster:
        first = await run(*publish(hub, 31, "--video", "none"))
        await until(lambda: 31 in roster.people, 20)
        second = await run(*publish(hub, 31, "--video", "none"))
        assert await ended(first, 30) == (1, "publishing as 31\nError: the channel closed the connection of 31\n")
        second.send_signal(signal.SIGINT)
        assert (await ended(second))[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_hub_command_serves_and_ends_well(number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    process = await run("hub", CLOUD_RECORDER_HUB__PORT=str(port))
    async with asyncio.timeout(20), httpx.AsyncClient(trust_env=False) as client:
        while True:
            try:
                answer = await client.get(f"http://127.0.0.1:{port}/healthz")
                break
            except httpx.HTTPError:
                await asyncio.sleep(0.1)
    assert answer.json() == {"status": "ok"}
    process.send_signal(number)
    assert (await ended(process))[0] == 0
