"""Runs the hub's HTTP server until it is asked to end."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from typing import Final

import uvicorn

from recorder.hub.app import create_app
from recorder.hub.rights import Rights
from recorder.rtp.negotiation import VIDEO_ORIENTATION, offer_codecs, offer_extension, use_addresses
from recorder.settings import Hub, check_addresses
from recorder.strict_http import StrictHttp
from recorder.tls import server_context

log = logging.getLogger(__name__)

_PING_SECONDS: Final = 10.0  # a recorder whose machine vanished leaves the roster within twice that
_END_SECONDS: Final = 3
_MESSAGE_LIMIT_BYTES: Final = 4096


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the command; uvicorn would raise them again after a clean end."""
        yield


async def serve(settings: Hub, stop: asyncio.Event, *, rights: Rights | None = None, listener: socket.socket | None = None) -> None:
    """Serve on the configured address, or on an already bound `listener`, until `stop` is set. `rights`: see `create_app`.

    Raises:
        ConfigError: an address for media is none of this machine's, so that nobody could ever connect; or TLS is not set up well.
    """
    tls = server_context("hub", settings)
    check_addresses("hub.addresses", settings.addresses)
    use_addresses(settings.addresses)
    offer_codecs()
    offer_extension("video", VIDEO_ORIENTATION)
    config = uvicorn.Config(
        create_app(settings, rights),
        host=settings.host,
        port=settings.port,
        http=StrictHttp,
        log_config=None,
        log_level="warning",  # below it every roster's URL is logged
        access_log=False,  # the URL of a session is the right to end it
        server_header=False,
        ws_max_size=_MESSAGE_LIMIT_BYTES,
        ws_ping_interval=_PING_SECONDS,
        ws_ping_timeout=_PING_SECONDS,
        timeout_graceful_shutdown=_END_SECONDS,
    )
    config.load()
    config.ssl = tls
    server = _Server(config)
    log.info("hub starts", extra={"host": settings.host, "port": settings.port, "addresses": settings.addresses})
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(server.serve([listener] if listener else None))
        stopping = group.create_task(stop.wait())
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        stopping.cancel()
