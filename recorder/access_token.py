"""AccessToken2 "007", the format of the public token builders: build, parse, verify. Pure; the clock is a parameter.

Layout: "007" + base64(zlib(signature + content)), all integers little-endian, strings with a 16-bit length.
Content: app id, issued at, lifetime, salt, number of services, then the services. Only the media service (type 1) matters here.
"""

import base64
import binascii
import hmac
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

VERSION = "007"
MEDIA_SERVICE = 1
JOIN_CHANNEL, PUBLISH_AUDIO, PUBLISH_VIDEO, PUBLISH_DATA = 1, 2, 3, 4

TOKEN_LIMIT = 4096  # characters; the longest real ones have about 600
_CONTENT_LIMIT_BYTES = 16384  # after decompression
# What follows the privileges of each known service, to step over it: s is a string, h a 16-bit integer.
_SERVICE_FIELDS = {MEDIA_SERVICE: "ss", 2: "s", 3: "ss", 4: "", 5: "s", 7: "ssh"}


class TokenError(Exception):
    """The token is not valid for this use; the message says why and never shows the token."""


class TokenMalformed(TokenError):
    """Not a token of this format."""


class TokenForged(TokenError):
    """The signature does not fit the app's certificate, or the token is another app's."""


class TokenExpired(TokenError):
    """The token's time is over."""


class TokenMismatch(TokenError):
    """A genuine token, but for another channel or user, or without the right to join."""


@dataclass(frozen=True, slots=True)
class MediaService:
    """The right to use one channel. Privileges map to seconds after issue; 0: as long as the token."""

    channel: str
    uid: str  # "": any user
    privileges: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AccessToken:
    app_id: str
    issued_at: int  # Unix seconds
    lifetime: int  # seconds
    salt: int
    media: MediaService | None
    signature: bytes = field(repr=False, default=b"")
    content: bytes = field(repr=False, default=b"")  # what the signature covers

    @property
    def expires_at(self) -> int:
        """Unix seconds at which the right to join ends."""
        join = self.media.privileges.get(JOIN_CHANNEL, 0) if self.media else 0
        return self.issued_at + (min(join, self.lifetime) if join else self.lifetime)


def build(app_id: str, certificate: str, media: MediaService, *, issued_at: int, lifetime: int, salt: int) -> str:
    """Make a token; `salt` is a random number of 1 … 99999999."""
    content = packed(app_id.encode()) + struct.pack("<IIIH", issued_at, lifetime, salt, 1)
    content += struct.pack("<HH", MEDIA_SERVICE, len(media.privileges))
    content += b"".join(struct.pack("<HI", *pair) for pair in sorted(media.privileges.items()))
    uid = "" if media.uid == "0" else media.uid
    content += packed(media.channel.encode()) + packed(uid.encode())
    signature = _sign(certificate, issued_at, salt, content)
    return VERSION + base64.b64encode(zlib.compress(packed(signature) + content)).decode()


def parse(text: str) -> AccessToken:
    """Read a token without judging it.

    Raises:
        TokenMalformed: it is none.
    """
    if not text.startswith(VERSION) or len(text) > TOKEN_LIMIT:
        raise TokenMalformed("not an AccessToken2")
    try:
        inflate = zlib.decompressobj()
        reader = Reader(inflate.decompress(base64.b64decode(text[len(VERSION) :], validate=True), _CONTENT_LIMIT_BYTES))
        signature = reader.string()
        content = reader.rest()
        app_id = reader.string().decode()
        issued_at, lifetime, salt, count = reader.integers("<IIIH")
        media = None
        for _ in range(count):
            service = _read_service(reader)
            media = media or service
    except (binascii.Error, zlib.error, struct.error, UnicodeDecodeError, ValueError) as error:
        raise TokenMalformed("not an AccessToken2") from error
    return AccessToken(app_id, issued_at, lifetime, salt, media, signature, content)


def verify(text: str, *, app_id: str, certificate: str, channel: str, uid: int | None, now: float) -> AccessToken:
    """Return the token when it lets `uid` (None: whoever it names) join `channel` of `app_id` at Unix time `now`.

    Raises:
        TokenError: one of the classes above.
    """
    token = parse(text)
    expected = _sign(certificate, token.issued_at, token.salt, token.content)
    if not hmac.compare_digest(expected, token.signature):
        raise TokenForged("the token's signature is wrong")
    if token.app_id != app_id:
        raise TokenForged("the token is for another app")
    if now >= token.expires_at:
        raise TokenExpired("the token has expired")
    media = token.media
    if media is None or JOIN_CHANNEL not in media.privileges:
        raise TokenMismatch("the token gives no right to join a channel")
    if media.channel != channel:
        raise TokenMismatch("the token is for another channel")
    if uid is not None and media.uid not in ("", "0", str(uid)):
        raise TokenMismatch("the token is for another user")
    return token


def _read_service(reader: "Reader") -> MediaService | None:
    kind, privilege_count = reader.integers("<HH")
    privileges: dict[int, int] = {}
    for _ in range(privilege_count):
        privilege, seconds = reader.integers("<HI")
        privileges[privilege] = seconds
    if kind not in _SERVICE_FIELDS:
        raise ValueError(kind)
    strings = []
    for letter in _SERVICE_FIELDS[kind]:
        if letter == "s":
            strings.append(reader.string().decode())
        else:
            reader.integers("<h")
    return MediaService(strings[0], strings[1], privileges) if kind == MEDIA_SERVICE else None


def _sign(certificate: str, issued_at: int, salt: int, content: bytes) -> bytes:
    # The builders use the numbers as HMAC keys and the certificate as the message, in this order.
    key = hmac.digest(struct.pack("<I", issued_at), certificate.encode(), "sha256")
    key = hmac.digest(struct.pack("<I", salt), key, "sha256")
    return hmac.digest(key, content, "sha256")


def packed(value: bytes) -> bytes:
    """A string as tokens hold it."""
    return struct.pack("<H", len(value)) + value


class Reader:
    """Takes little-endian integers and strings with a 16-bit length, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def integers(self, form: str) -> tuple[int, ...]:
        values: tuple[int, ...] = struct.unpack_from(form, self._data, self._position)
        self._position += struct.calcsize(form)
        return values

    def string(self) -> bytes:
        (length,) = self.integers("<H")
        if self._position + length > len(self._data):
            raise ValueError("truncated")
        self._position += length
        return self._data[self._position - length : self._position]

    def rest(self) -> bytes:
        return self._data[self._position :]
