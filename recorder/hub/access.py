"""Who may use a channel of the hub."""

import ipaddress
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import SecretStr

from recorder.access_token import TokenError, TokenExpired, TokenMismatch
from recorder.admission import check

# The 89 characters of a channel name.
_CHANNEL: Final = re.compile(r"[a-zA-Z0-9 !#$%&()+\-:;<=.>?@\[\]^_{}|~,]{1,64}")
_APP_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_UID_LIMIT: Final = 2**32


class Refused(Exception):
    """A request the hub does not serve; the message is for the client and holds no secret."""

    def __init__(self, status: HTTPStatus, reason: str, error: Literal["token", "token_expired"] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.error = error  # for recorders, which end with it


@dataclass(frozen=True, slots=True)
class AppRights:
    """How the channels of one app are guarded."""

    certificate: SecretStr | None = None  # its channels need an access token
    open: bool = False  # without certificate: callers from other machines are let in too


@dataclass(frozen=True, slots=True)
class Caller:
    """What an HTTP request tells of its sender."""

    host: str
    called: str  # the Host header: as which host the hub was asked for
    origin: str | None
    authorization: str | None


def check_names(app_id: str, channel: str) -> None:
    """Raises Refused when one of them can't be a name."""
    if not _APP_ID.fullmatch(app_id):
        raise Refused(HTTPStatus.BAD_REQUEST, "the app id is not valid")
    if not _CHANNEL.fullmatch(channel):
        raise Refused(HTTPStatus.BAD_REQUEST, "the channel name is not valid")


def read_uid(text: str) -> int:
    """Raises Refused when it is no uid of 1 … 2^32 - 1."""
    if not text.isascii() or not text.isdecimal() or len(text) > 10 or not 0 < int(text) < _UID_LIMIT:
        raise Refused(HTTPStatus.BAD_REQUEST, "the uid is not a number of 1 to 4294967295")
    return int(text)


def admit(rights: AppRights, caller: Caller, *, app_id: str, channel: str, uid: int | None, now: float) -> float | None:
    """Let the caller into the channel as `uid` (None: as whom its token names); returns until when, in Unix seconds.

    Raises:
        Refused: it may not come in.
    """
    if rights.certificate is None:
        _admit_to_open_channel(rights, caller)
        return None
    scheme, _, token = (caller.authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Refused(HTTPStatus.UNAUTHORIZED, "this app needs an access token", "token")
    certificate = rights.certificate.get_secret_value()
    try:
        return float(check(token.strip(), app_id=app_id, certificate=certificate, channel=channel, uid=uid, now=now))
    except TokenMismatch as error:
        raise Refused(HTTPStatus.FORBIDDEN, str(error), "token") from None
    except TokenExpired as error:
        raise Refused(HTTPStatus.UNAUTHORIZED, str(error), "token_expired") from None
    except TokenError as error:
        raise Refused(HTTPStatus.UNAUTHORIZED, str(error), "token") from None


def _admit_to_open_channel(rights: AppRights, caller: Caller) -> None:
    if rights.open:
        return
    # Whoever comes through a proxy on this machine comes from loopback, but asks for another host.
    if not _is_loopback(caller.host) or not _is_loopback(_hostname(f"//{caller.called}")):
        raise Refused(HTTPStatus.FORBIDDEN, "this app has no certificate: only callers from this machine are let in")
    # A page of some web site in a browser on this machine comes from loopback too.
    if caller.origin is not None and not _is_loopback(_hostname(caller.origin)):
        raise Refused(HTTPStatus.FORBIDDEN, "this app has no certificate: only pages of this machine are let in")


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # brackets around what is no address
        return ""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
