"""Access tokens made straight from the description of their layouts, and not by the code under test.

Every integer is little-endian; a string is its length in 16 bits and its bytes; a map is its length in 16 bits and its pairs.
"""

import hashlib
import hmac
import zlib
from base64 import b64encode


def u16(number: int) -> bytes:
    return number.to_bytes(2, "little")


def u32(number: int) -> bytes:
    return number.to_bytes(4, "little")


def text(value: bytes) -> bytes:
    return u16(len(value)) + value


def pairs(privileges: dict[int, int]) -> bytes:
    return u16(len(privileges)) + b"".join(u16(key) + u32(privileges[key]) for key in sorted(privileges))


def sha256(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def token_006(app_id: str, certificate: str, channel: str, uid: int, privileges: dict[int, int], *, ends_at: int, salt: int = 1) -> str:
    """`privileges` end at Unix seconds. The uid 0 is written as no uid at all."""
    who = str(uid).encode() if uid else b""
    message = u32(salt) + u32(ends_at) + pairs(privileges)
    signature = sha256(certificate.encode(), app_id.encode() + channel.encode() + who + message)
    content = text(signature) + u32(zlib.crc32(channel.encode())) + u32(zlib.crc32(who)) + text(message)
    return "006" + app_id + b64encode(content).decode()


def token_007(
    app_id: str, certificate: str, channel: str, uid: int, privileges: dict[int, int], *, issued_at: int, seconds: int, salt: int = 1
) -> str:
    """`privileges` end so many seconds after the issue. One service, the media service, which has number 1."""
    who = str(uid).encode() if uid else b""
    content = text(app_id.encode()) + u32(issued_at) + u32(seconds) + u32(salt) + u16(1)
    content += u16(1) + pairs(privileges) + text(channel.encode()) + text(who)
    key = sha256(u32(salt), sha256(u32(issued_at), certificate.encode()))
    return "007" + b64encode(zlib.compress(text(sha256(key, content)) + content)).decode()
