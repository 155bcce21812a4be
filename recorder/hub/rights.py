"""What the hub knows of apps: certificate, and whether their channels are open. It has no database, so it asks."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final, Protocol

from pydantic import SecretStr

from recorder.hub.access import AppRights, Refused
from recorder.peer import LINE_LIMIT_BYTES, Peer, PeerLost
from recorder.protocol import App, AskApp, Done, Message
from recorder.settings import Hub

log = logging.getLogger(__name__)

FRESH_SECONDS: Final = 1.0  # how old an answer may be; `cloud-recorder apps` works within it
ANSWER_SECONDS: Final = 2.0
APPS_REMEMBERED: Final = 1000


class Rights(Protocol):
    async def of(self, app_id: str) -> AppRights:
        """Raises Refused when the app is unknown, or nobody can tell."""


class ConfiguredRights:
    """From the settings alone: every app exists."""

    def __init__(self, settings: Hub) -> None:
        self._settings = settings

    async def of(self, app_id: str) -> AppRights:
        return AppRights(self._settings.certificates.get(app_id), self._settings.allow_open_channels)


@dataclass(frozen=True, slots=True)
class _Answer:
    at: float
    app: App | None  # None: there is no such app


class AskedRights:
    """From the settings, and for what these do not name from the control plane of this machine.

    While that is away, what it said last counts, and apps it was never asked for are let in by nobody.
    """

    def __init__(self, settings: Hub, control_socket: Path, *, now: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._path = control_socket
        self._now = now
        self._known: OrderedDict[str, _Answer] = OrderedDict()  # the one used longest ago first

    async def of(self, app_id: str) -> AppRights:
        configured = self._settings.certificates.get(app_id)
        if configured:
            return AppRights(configured, open=False)
        app = (await self._answer(app_id)).app
        if app is None:
            raise Refused(HTTPStatus.FORBIDDEN, "there is no such app")
        certificate = SecretStr(app.certificate) if app.certificate else None
        return AppRights(certificate, open=app.open_channels or self._settings.allow_open_channels)

    async def _answer(self, app_id: str) -> _Answer:
        known = self._known.get(app_id)
        if known is None or self._now() - known.at >= FRESH_SECONDS:
            try:
                known = _Answer(self._now(), await self._ask(app_id))
            except (OSError, TimeoutError, ValueError, PeerLost) as error:
                log.warning("the control plane cannot be asked for an app", extra={"error": type(error).__name__})
                if known is None:
                    raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "the control plane is not there to tell about this app") from error
        self._known[app_id] = known
        self._known.move_to_end(app_id)
        if len(self._known) > APPS_REMEMBERED:
            self._known.popitem(last=False)
        return known

    async def _ask(self, app_id: str) -> App | None:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_unix_connection(self._path, limit=LINE_LIMIT_BYTES)
            peer = Peer(reader, writer, _nothing_to_say)
            serving = asyncio.create_task(peer.run())
            try:
                answer = await peer.request(AskApp(app_id=app_id))
            finally:
                peer.close()
                serving.cancel()
                await asyncio.wait((serving,))
                if not serving.cancelled() and (error := serving.exception()):
                    log.warning("the control plane speaks another language", extra={"error": type(error).__name__})
        return answer if isinstance(answer, App) else None


async def _nothing_to_say(_message: Message) -> Message:
    return Done()
