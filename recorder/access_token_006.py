"""The older access token "006" of the public token builders: build and verify. Pure; the clock is a parameter.

Layout: "006" + app id + base64(signature, CRC-32 of the channel, CRC-32 of the uid, message), all integers little-endian, strings
with a 16-bit length. Message: salt, Unix seconds at which the token ends (builders: a day after they made it), and a map of
privileges to the Unix seconds at which each ends (0: with the token). Channel and uid are in the signature, not in the text.
"""

import base64
import binascii
import hmac
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from recorder.access_token import JOIN_CHANNEL, TOKEN_LIMIT, Reader, TokenExpired, TokenForged, TokenMalformed, TokenMismatch, packed

VERSION = "006"

_ANYBODY = ("", "0")  # builders write no uid for 0; one of them writes the digit when it is given as text


@dataclass(frozen=True, slots=True)
class Token006:
    signature: bytes = field(repr=False)
    channel_crc: int
    uid_crc: int
    message: bytes = field(repr=False)  # what the signature covers beside app id, channel and uid
    ends_at: int  # Unix seconds
    privileges: Mapping[int, int]

    @property
    def expires_at(self) -> int:
        """Unix seconds at which the right to join ends."""
        return min(self.ends_at, self.privileges.get(JOIN_CHANNEL) or self.ends_at)


def build(app_id: str, certificate: str, *, channel: str, uid: str, privileges: Mapping[int, int], ends_at: int, salt: int) -> str:
    """Make a token; `salt` is a random number of 1 … 99999999, `uid` "" or "0" serves anybody."""
    uid = "" if uid in _ANYBODY else uid
    message = struct.pack("<IIH", salt, ends_at, len(privileges))
    message += b"".join(struct.pack("<HI", *pair) for pair in sorted(privileges.items()))
    signature = _sign(certificate, app_id, channel, uid, message)
    content = packed(signature) + struct.pack("<II", zlib.crc32(channel.encode()), zlib.crc32(uid.encode())) + packed(message)
    return VERSION + app_id + base64.b64encode(content).decode()


def parse(text: str, app_id: str) -> Token006:
    """Read a token without judging it; `app_id` is needed to tell where its text ends.

    Raises:
        TokenForged: it is another app's.
        TokenMalformed: it is none.
    """
    if not text.startswith(VERSION) or len(text) > TOKEN_LIMIT:
        raise TokenMalformed("not an access token 006")
    if not text.startswith(VERSION + app_id):
        raise TokenForged("the token is for another app")
    try:
        reader = Reader(base64.b64decode(text[len(VERSION + app_id) :], validate=True))
        signature = reader.string()
        channel_crc, uid_crc = reader.integers("<II")
        message = reader.string()
        inner = Reader(message)
        _, ends_at, count = inner.integers("<IIH")
        privileges: dict[int, int] = {}
        for _ in range(count):
            privilege, until = inner.integers("<HI")
            privileges[privilege] = until
    except (binascii.Error, struct.error, ValueError) as error:
        raise TokenMalformed("not an access token 006") from error
    return Token006(signature, channel_crc, uid_crc, message, ends_at, privileges)


def verify(text: str, *, app_id: str, certificate: str, channel: str, uid: int | None, now: float) -> Token006:
    """Return the token when it lets `uid` join `channel` of `app_id` at Unix time `now`.

    The token does not name its user: `uid` None is let in by a token for anybody only.

    Raises:
        TokenError: one of the classes of `recorder.access_token`.
    """
    token = parse(text, app_id)
    names = _ANYBODY if uid is None else (str(uid), *_ANYBODY)
    signed = [hmac.compare_digest(_sign(certificate, app_id, channel, name, token.message), token.signature) for name in names]
    if not any(signed):
        raise _why_not(token, channel, names)
    if now >= token.expires_at:
        raise TokenExpired("the token has expired")
    if JOIN_CHANNEL not in token.privileges:
        raise TokenMismatch("the token gives no right to join a channel")
    return token


def _why_not(token: Token006, channel: str, names: tuple[str, ...]) -> Exception:
    """The checksums are no proof, but tell a genuine token that is used elsewhere from a forged one."""
    if token.channel_crc != zlib.crc32(channel.encode()):
        return TokenMismatch("the token is for another channel")
    if token.uid_crc not in {zlib.crc32(name.encode()) for name in names}:
        return TokenMismatch("the token is for another user")
    return TokenForged("the token's signature is wrong")


def _sign(certificate: str, app_id: str, channel: str, uid: str, message: bytes) -> bytes:
    return hmac.digest(certificate.encode(), (app_id + channel + uid).encode() + message, "sha256")
