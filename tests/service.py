"""The whole service as `cloud-recorder serve` for end-to-end tests and benches."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from cli.demo.processes import free_ports, spawned, until_said
from recorder.tools.api_client import ApiClient, Credentials


@dataclass(frozen=True, slots=True)
class Service:
    url: str
    hub: str
    data: Path
    credentials: Credentials

    def client(self) -> ApiClient:
        return ApiClient(self.url, self.credentials)

    @property
    def log(self) -> str:
        return (self.data / "serve.log").read_text(errors="replace")


@contextlib.asynccontextmanager
async def service(data: Path, *options: str, **environment: str) -> AsyncIterator[Service]:
    """`serve` with `options` on free ports of loopback, ready. `environment`: further settings, without their prefix."""
    data.mkdir(parents=True, exist_ok=True)
    api, probes, hub = free_ports(3)
    own = {
        "DATA_DIR": str(data),
        "API__PORT": str(api),
        "API__PROBE_PORT": str(probes),
        "HUB__PORT": str(hub),
        "AGENT__HUB_URL": f"http://127.0.0.1:{hub}",
    }
    variables = {f"CLOUD_RECORDER_{name}": value for name, value in {**own, **environment}.items()}
    log = data / "serve.log"
    async with spawned(log, "serve", *options, environment=variables) as process:
        await until_said(process, log, "ready;", "the service")
        yield Service(f"http://127.0.0.1:{api}", f"http://127.0.0.1:{hub}", data, Credentials.read(data / "credentials.json"))
