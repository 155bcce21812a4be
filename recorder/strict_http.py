"""HTTP/1.1 as the listeners of the service speak it: where a request ends is never a matter of opinion.

A proxy in front and the server behind it must see the same requests in the same bytes, or one customer's body becomes another's
call (RFC 9112 section 11.2). h11 finds the ends of requests; here is refused what it would put up with. An `Upgrade` that is not
followed is ignored, with the request's body in its place, as RFC 9110 section 7.8 wants it: Java's client asks for h2c on its own.
"""

import asyncio
import re
from typing import Any, Final

import h11
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

LARGEST_HEAD_BYTES: Final = 16 * 1024  # of the request line and all headers
REQUEST_SECONDS: Final = 20.0  # for a whole request to come, from its first byte on, or from the beginning of its connection

_BROKEN: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n)|\n[ \t]")  # controls, half line ends, folded lines
_LENGTHS: Final = re.compile(rb"\n(?:content-length|transfer-encoding):([^\r]*)", re.IGNORECASE)
_HOST: Final = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]*)(:[0-9]*)?")  # RFC 3986 section 3.2
_ABSOLUTE: Final = re.compile(rb"https?://[^/?]+", re.IGNORECASE)


class StrictHttp(H11Protocol):
    """For uvicorn, as `Config(http=StrictHttp)`."""

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = StrictConnection()
        self._patience: asyncio.TimerHandle | None = None  # while a request is coming

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._patience:
            self._patience.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.transport.is_closing():  # what follows a refused request is read no more
            super().data_received(data)
            self._wait()

    def _wait(self) -> None:
        """Have patience with a request that is coming, and no longer once it is there."""
        ours = not self.transport.is_closing() and self.transport.get_protocol() is self  # not a WebSocket's by now
        coming = ours and self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        if coming and self._patience is None:
            self._patience = self.loop.call_later(REQUEST_SECONDS, self._give_up)
        elif not coming and self._patience:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        if self.cycle:
            self.cycle.disconnected = True  # what the application still says goes nowhere
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # nothing was answered yet
            self.transport.write(b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\r\n")
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Close at once when the request was answered already, as one is whose credentials are wrong before its body has come."""
        if self.cycle:
            self.cycle.disconnected = True  # likewise
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()


class StrictConnection(h11.Connection):
    """The server's side of one connection."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, LARGEST_HEAD_BYTES)

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Raises:
        h11.RemoteProtocolError: the connection is to be closed.
        """
        before, _ = self.trailing_data
        event = super().next_event()
        taken = before[: len(before) - len(self.trailing_data[0])]
        if isinstance(event, h11.Request):
            _check_head(taken, event)
            return _in_origin_form(event)
        if isinstance(event, h11.EndOfMessage) and taken and (len(event.headers) or not taken.endswith(b"\r\n")):
            raise h11.RemoteProtocolError("a body in chunks ends with an empty line, and with nothing else")
        return event


def _check_head(head: bytes, request: h11.Request) -> None:
    if len(head) > LARGEST_HEAD_BYTES:
        raise h11.RemoteProtocolError("too many headers", error_status_hint=431)
    if _BROKEN.search(head):
        raise h11.RemoteProtocolError("a broken line")
    headers = dict(request.headers)
    lengths = _LENGTHS.findall(head)
    if len(lengths) > 1 or b"," in b"".join(lengths):
        raise h11.RemoteProtocolError("more than one length")
    if request.http_version not in (b"1.0", b"1.1") or (request.http_version == b"1.0" and b"transfer-encoding" in headers):
        raise h11.RemoteProtocolError("not of this version of HTTP")
    if not _HOST.fullmatch(headers.get(b"host", b"")):
        raise h11.RemoteProtocolError("not a host")
    if any(length.strip() != b"0" for length in lengths) and headers.get(b"upgrade", b"").lower() == b"websocket":
        raise h11.RemoteProtocolError("a WebSocket with a body")


def _in_origin_form(request: h11.Request) -> h11.Request:
    """Absolute targets must be understood (RFC 9112 section 3.2.2); which host they name makes no difference here."""
    target = _ABSOLUTE.sub(b"", request.target, count=1) if _ABSOLUTE.match(request.target) else request.target
    if target.startswith(b"?") or not target:
        target = b"/" + target
    if request.method == b"CONNECT" or b"#" in target or not (target.startswith(b"/") or (target, request.method) == (b"*", b"OPTIONS")):
        raise h11.RemoteProtocolError("not a target")
    return h11.Request(method=request.method, target=target, headers=list(request.headers), http_version=request.http_version)
