"""A customer of the recording API, as small as one can be: used by the demo, the tests and the benches."""

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
from pydantic import BaseModel, SecretStr


class Credentials(BaseModel):
    """The file that the first start of the service writes."""

    customer_id: str
    customer_secret: SecretStr
    app_id: str

    @classmethod
    def read(cls, path: Path) -> Self:
        return cls.model_validate_json(path.read_bytes())


class ApiError(Exception):
    """The API answered with something else than success; the message names the call, status and body."""

    def __init__(self, call: str, response: httpx.Response) -> None:
        super().__init__(f"{call} was answered with {response.status_code}: {response.text[:300]}")
        self.status = response.status_code


class ApiClient:
    """Calls of one app. Use as an async context manager."""

    def __init__(self, url: str, credentials: Credentials) -> None:
        base = f"{url}/v1/apps/{credentials.app_id}/cloud_recording/"
        auth = (credentials.customer_id, credentials.customer_secret.get_secret_value())
        self.http = httpx.AsyncClient(base_url=base, auth=auth, timeout=30, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """POST `body`, or GET without one; returns the body of a 200.

        Raises:
            ApiError: any other status.
        """
        response = await (self.http.get(path) if body is None else self.http.post(path, json=body))
        if response.status_code != httpx.codes.OK:
            raise ApiError(path.rpartition("/")[2], response)
        answer: dict[str, Any] = response.json()
        return answer

    async def start(self, channel: str, uid: int, mode: str, request: dict[str, Any]) -> "RunningRecording":
        """Acquire and start."""
        envelope = {"cname": channel, "uid": str(uid)}
        resource_id = (await self.call("acquire", {**envelope, "clientRequest": {}}))["resourceId"]
        asked_ms = time.time_ns() // 1_000_000
        started = await self.call(f"resourceid/{resource_id}/mode/{mode}/start", {**envelope, "clientRequest": request})
        return RunningRecording(self, envelope, f"resourceid/{resource_id}/sid/{started['sid']}/mode/{mode}", started["sid"], asked_ms)


@dataclass(slots=True)
class RunningRecording:
    """One recording from its start on."""

    client: ApiClient
    envelope: dict[str, str]
    path: str
    sid: str
    asked_ms: int  # Unix ms, when start was sent
    slice_start_ms: int = 0  # of the first media, once query told it
    statuses: set[int] = field(default_factory=set)  # all that query gave

    async def query(self) -> dict[str, Any]:
        """The server's response."""
        response: dict[str, Any] = (await self.client.call(f"{self.path}/query"))["serverResponse"]
        self.slice_start_ms = response.get("sliceStartTime") or self.slice_start_ms
        self.statuses.add(int(response["status"]))
        return response

    async def gone(self, seconds: float) -> None:
        """Wait until the recording has ended by itself.

        Raises:
            TimeoutError: it has not.
        """
        async with asyncio.timeout(seconds):
            while True:
                try:
                    await self.query()
                except ApiError as error:
                    if error.status == httpx.codes.NOT_FOUND:
                        return
                    raise
                await asyncio.sleep(0.5)

    async def command(self, call: str, request: dict[str, Any]) -> dict[str, Any]:
        """update, updateLayout or stop."""
        return await self.client.call(f"{self.path}/{call}", {**self.envelope, "clientRequest": request})

    async def stop(self, *, at_once: bool = False) -> dict[str, Any]:
        """Stop and return the server's response: after everything is stored, unless `at_once`."""
        answer = await self.command("stop", {"async_stop": True} if at_once else {})
        response: dict[str, Any] = answer["serverResponse"]
        return response


def folder_storage(bucket: str, *prefix: str) -> dict[str, Any]:
    """`storageConfig` of vendor 100, a folder below the operator's root."""
    return {"vendor": 100, "region": 0, "bucket": bucket, "accessKey": "-", "secretKey": "-", "fileNamePrefix": list(prefix)}
