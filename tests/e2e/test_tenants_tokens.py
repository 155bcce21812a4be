"""An app with a certificate, over a hub that speaks TLS: tokens open channels, end recordings in time, and are seen by nobody."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from recorder.tools.api_client import ApiClient, ApiError, Credentials, RunningRecording, folder_storage
from tests.canary import secret
from tests.certificates import self_signed
from tests.e2e import requests
from tests.e2e.test_callbacks_events import SETTINGS, subscribe
from tests.e2e.test_process_death import Serve, answering, family, leaks
from tests.live import publisher
from tests.strict_receiver import strict_receiver
from tests.tokens import token_006, token_007

CERTIFICATE = secret("certificate-51c0ffee")
CHANNEL = "room"


def command(data: Path, *argv: str, given: str = "") -> str:
    environment = os.environ | {"CLOUD_RECORDER_DATA_DIR": str(data)}
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *argv], env=environment, input=given, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def an_app_with_certificate(data: Path) -> Credentials:
    """Of a customer of its own; the service is running."""
    customer: dict[str, Any] = json.loads(command(data, "customers", "create", "--json"))
    app_id = json.loads(command(data, "apps", "create", customer["customer_id"], "--json"))["app_id"]
    command(data, "apps", "set", app_id, "--certificate-file", "-", given=CERTIFICATE)
    return Credentials(customer_id=customer["customer_id"], customer_secret=SecretStr(customer["customer_secret"]), app_id=app_id)


async def test_tokens_of_a_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, key = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))  # for workers and publishers, who trust the system's authorities otherwise
    serve = Serve(
        tmp_path / "data",
        {
            "HUB__TLS_CERT": str(cert),
            "HUB__TLS_KEY": str(key),
            "LOG_LEVEL": "DEBUG",
            "API__REQUESTS_PER_SECOND": "100",
            **SETTINGS,
            "AGENT__CORES": "16",  # seven recordings at once, which do little, also where there are two processors
        },
    )
    hub = f"https://127.0.0.1:{serve.ports[2]}"
    serve.environment["AGENT__HUB_URL"] = hub
    storage = folder_storage("rec") | {"accessKey": "canary-access-51c0ffee", "secretKey": "canary-secret-51c0ffee"}
    tokens: dict[int, str] = {}

    async with contextlib.AsyncExitStack() as stack:
        there = await stack.enter_async_context(strict_receiver())
        await stack.enter_async_context(serve.running())
        credentials = await asyncio.to_thread(an_app_with_certificate, serve.data)
        app_id = credentials.app_id
        client = await stack.enter_async_context(ApiClient(f"http://127.0.0.1:{serve.ports[0]}", credentials))
        await subscribe(client, serve, there, app=app_id)

        async def start(uid: int, token: str | None) -> RunningRecording:
            tokens[uid] = token or ""
            return await client.start(CHANNEL, uid, "mix", requests.mix(storage, mp4=False) | ({"token": token} if token else {}))

        def older(uid: int, seconds: int) -> str:
            return token_006(app_id, CERTIFICATE, CHANNEL, uid, {1: int(time.time()) + seconds}, ends_at=int(time.time()) + 86_400)

        def newer(uid: int, seconds: int) -> str:
            return token_007(app_id, CERTIFICATE, CHANNEL, uid, {1: seconds}, issued_at=int(time.time()), seconds=86_400)

        def expired(uid: int) -> str:
            return token_007(app_id, CERTIFICATE, CHANNEL, uid, {1: 0}, issued_at=int(time.time()) - 100, seconds=99)

        token_file = tmp_path / "publisher.token"
        token_file.write_text(newer(0, 600))
        await stack.enter_async_context(publisher(hub, 101, "--token-file", str(token_file), app=app_id, channel=CHANNEL))

        long, short = await start(901, older(901, 600)), await start(902, newer(902, 30))
        ends_at = time.time() + 30
        refused = {
            "token_expired": [await start(903, older(903, -1)), await start(904, expired(904))],
            "token": [await start(905, older(906, 600)), await start(907, None), await start(908, "007nonsense")],
        }
        for reason, recordings in refused.items():
            for recording in recordings:
                assert await serve.finished(recording.sid, 40) == (20, "failed", reason, "unknown")
                with pytest.raises(ApiError, match=r'404: .*"code":404'):
                    await recording.query()

        secrets = {f"token of {uid}": token.encode() for uid, token in tokens.items() if len(token) > 20}
        secrets |= {"certificate": CERTIFICATE.encode(), "customer": credentials.customer_secret.get_secret_value().encode()}
        secrets |= {name: storage[name].encode() for name in ("accessKey", "secretKey")}
        processes = [*family(serve.pid), serve.worker(long.sid), serve.worker(short.sid)]
        assert leaks(secrets, serve.data, processes) == []

        assert await serve.finished(short.sid, 60) == (8, "aborted", "token_expired", "uploaded")
        assert -3 < time.time() - ends_at < 15
        serve.lies_complete(short.sid, serve.data / "recordings" / "rec")
        assert await answering(long) == 5
        await long.stop()
        assert await serve.finished(long.sid) == (8, "complete", "stopped", "uploaded")
        serve.lies_complete(long.sid, serve.data / "recordings" / "rec")
        assert leaks(secrets, serve.data, family(serve.pid)) == []

        for reason, recordings in {"token_expired": [*refused["token_expired"], short], "token": refused["token"]}.items():
            for recording in recordings:
                report = await there.until_exit(recording.sid)
                assert report.problems == []
                (error,) = report.details(recording.sid, 1)
                assert (error["module"], error["errorCode"]) == (0, {"token_expired": 109, "token": 110}[reason])
                assert report.details(recording.sid, 11) == [{"msgName": "session_exit", "exitStatus": 1}]
        assert [notice.eventType for notice in report.of(short.sid)][-5:] == [1, 41, 33, 31, 11]  # what there is is uploaded

        async with httpx.AsyncClient(trust_env=False, verify=False) as stranger:  # it trusts nobody anyway
            for offered in (None, f"Bearer {older(102, -1)}"):
                headers = {"Content-Type": "application/sdp"} | ({"Authorization": offered} if offered else {})
                answer = await stranger.post(f"{hub}/whip/{app_id}/{CHANNEL}/102", headers=headers, content="v=0")
                assert answer.status_code == 401
                assert CERTIFICATE not in answer.text
