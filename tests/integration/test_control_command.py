"""`cloud-recorder api` as a real process: listeners, credentials, readiness, and how it ends."""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from cli.demo.processes import free_ports
from recorder.settings import Api, Settings
from tests.contract.fake_agent import connected


@dataclass
class Running:
    process: asyncio.subprocess.Process
    settings: Settings
    api: httpx.AsyncClient
    probes: httpx.AsyncClient


async def spawn(data_dir: Path, **api: object) -> asyncio.subprocess.Process:
    values = {
        "DATA_DIR": data_dir,
        "CALLBACKS__ADDRESSES": '["203.0.113.7"]',
        **{f"API__{name.upper()}": value for name, value in api.items()},
    }
    environment = os.environ | {f"CLOUD_RECORDER_{name}": str(value) for name, value in values.items()}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli.main", "api", env=environment, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )


@contextlib.asynccontextmanager
async def running(data_dir: Path) -> AsyncIterator[Running]:
    port, probe_port = free_ports(2)
    process = await spawn(data_dir, port=port, probe_port=probe_port)
    settings = Settings(data_dir=data_dir, api=Api(port=port, probe_port=probe_port))
    try:
        async with (
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as api,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{probe_port}", trust_env=False) as probes,
        ):
            async with asyncio.timeout(20):
                while process.returncode is None:
                    with contextlib.suppress(httpx.TransportError):
                        await api.get("/")
                        await probes.get("/healthz")
                        break
                    await asyncio.sleep(0.1)
            assert process.returncode is None
            yield Running(process, settings, api, probes)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_the_first_start_makes_private_credentials_that_work(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as service:
        files = [service.settings.credentials_file, service.settings.data_dir / "master.key"]
        assert [file.stat().st_mode & 0o777 for file in files] == [0o600, 0o600]
        assert service.settings.control_socket.parent.stat().st_mode & 0o777 == 0o700
        credentials = json.loads(files[0].read_text())
        assert credentials.keys() == {"customer_id", "customer_secret", "app_id"}
        assert (await service.probes.get("/healthz")).status_code == 200
        assert (await service.probes.get("/readyz")).status_code == 503
        auth = (credentials["customer_id"], credentials["customer_secret"])
        async with connected(service.settings.control_socket):
            assert (await service.probes.get("/readyz")).status_code == 200
            body = {"cname": "room", "uid": "7", "clientRequest": {}}
            answer = await service.api.post(f"/v1/apps/{credentials['app_id']}/cloud_recording/acquire", json=body, auth=auth)
            assert answer.status_code == 200
            assert "server" not in answer.headers
            hosts = (await service.api.get("/v1/ncs/ip", auth=auth)).json()
            assert hosts == {"data": {"service": {"hosts": [{"primaryIP": "203.0.113.7"}]}}}
            metrics = (await service.probes.get("/metrics")).text
            assert credentials["app_id"] not in metrics
            service.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(15):
                _, log = await service.process.communicate()
        assert service.process.returncode == 0, log.decode()
        assert credentials["customer_secret"] not in log.decode()
        assert "Traceback" not in log.decode()


async def test_credentials_outlive_the_database(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as service:
        credentials = json.loads(service.settings.credentials_file.read_text())
    for file in service.settings.data_dir.glob("recorder.db*"):
        file.unlink()
    async with running(tmp_path / "data") as service:
        assert json.loads(service.settings.credentials_file.read_text()) == credentials
        auth = (credentials["customer_id"], credentials["customer_secret"])
        assert (await service.api.get("/v1/ncs/ip", auth=auth)).status_code == 200


async def test_a_killed_control_plane_starts_again_on_its_state(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as service:
        service.process.kill()
        await service.process.wait()
    async with running(tmp_path / "data") as service, connected(service.settings.control_socket):
        assert (await service.probes.get("/readyz")).status_code == 200


@pytest.mark.parametrize(("host", "word"), [("0.0.0.0", "loopback"), ("recorder.example.com", "loopback")])
async def test_plain_http_on_other_addresses_is_refused(tmp_path: Path, host: str, word: str) -> None:
    process = await spawn(tmp_path / "data", host=host)
    async with asyncio.timeout(20):
        _, errors = await process.communicate()
    assert process.returncode == 2
    assert word in errors.decode()
    assert len(errors.decode().splitlines()) == 1


async def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path / "data"):
        pass
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "recorder.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()
    process = await spawn(tmp_path / "data", port=0, probe_port=0)
    async with asyncio.timeout(20):
        _, errors = await process.communicate()
    assert process.returncode == 2
    assert "newer version" in errors.decode()


async def test_a_readable_master_key_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path / "data"):
        pass
    (tmp_path / "data" / "master.key").chmod(0o644)
    process = await spawn(tmp_path / "data", port=0, probe_port=0)
    async with asyncio.timeout(20):
        _, errors = await process.communicate()
    assert process.returncode == 2
    assert "master.key" in errors.decode()


async def test_the_control_plane_loads_no_media_library() -> None:
    code = "import cli.api, sys; print(sorted({'av', 'aiortc', 'numpy', 'mixer'} & sys.modules.keys()))"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(20):
        output, _ = await process.communicate()
    assert output.decode().strip() == "[]"
