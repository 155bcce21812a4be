"""AccessToken2 against the test vectors published with the public token builders."""

import base64
import zlib

import pytest

from recorder.access_token import (
    JOIN_CHANNEL,
    AccessToken,
    MediaService,
    TokenError,
    TokenExpired,
    TokenForged,
    TokenMalformed,
    TokenMismatch,
    build,
    parse,
    verify,
)

APP_ID = "970CA35de60c44645bbae8a215061b33"
CERTIFICATE = "5CFd2fd1755d40ecb72977518be15d3b"
CHANNEL = "7d72365eb983485397e3e3f9d460bdda"
UID = 2882341273
ISSUED_AT = 1111111

GO = "007eJxSYBBbsMMnKq7p9Hf/HcIX5kce9b518kCiQgSr5Zrp4X1Tu6UUGCzNDZwdjU1TUs0Mkk1MzExMk5ISUy0SjQxNDcwMk4yN3b8IMEQwMTAwMoAwBIL4CgzmKeZGxmamqUmWFsYmFqbGluapxqnGaZYpJmYGSSkpiVwMRhYWRsYmhkbmxoAAAAD//8JqJOM="  # noqa: E501  # published vector
PYTHON = "007eJxTYBBbsMMnKq7p9Hf/HcIX5kce9b518kCiQgSr5Zrp4X1Tu6UUGCzNDZwdjU1TUs0Mkk1MzExMk5ISUy0SjQxNDcwMk4yN3b8IMEQwMTAwMoAwBIL4CgzmKeZGxmamqUmWFsYmFqbGluapxqnGaZYpJmYGSSkpiVwMRhYWRsYmhkbmxgDCaiTj"  # noqa: E501  # published vector
ANY_UID = "007eJxSYLhzZP08Lxa1Pg57+TcXb/3cZ3wi4V6kbpbOog0G2dOYk20UGCzNDZwdjU1TUs0Mkk1MzExMk5ISUy0SjQxNDcwMk4yN3b8IMEQwMTAwMoAwBIL4CgzmKeZGxmamqUmWFsYmFqbGluapxqnGaZYpJmYGSSkpiQwMgAAAAP//Npwiag=="  # noqa: E501  # published vector
WITH_SIGNALLING = "007eJxTYOAQsrQ5s3TfH+1tvy8zZZ46EpCc0V43JXdGd2jS8porKo4KDJbmBs6OxqYpqWYGySYmZiamSUmJqRaJRoamBmaGScbG7l8EGCKYGBgYGRgYmIAkCxCD+ExgkhlMsoBJBQbzFHMjYzPT1CRLC2MTC1NjS/NU41TjNMsUEzODpJSURC4GIwsLI2MTQyNzY5BZEJM4GUpSi0viS4tTiwAipyp4"  # noqa: E501  # published vector
ONLY_SIGNALLING = "007eJxSYOCdJftjyTM2zxW6Xhm/5T0j5LdcUt/xYVt48fb5Mp3PX9coMFiaGzg7GpumpJoZJJuYmJmYJiUlplokGhmaGpgZJhkbu38RYIhgYmBgZABhJgZGBkYwn5OhJLW4JL60OLUIEAAA//9ZVh6A"  # noqa: E501  # published vector


def check(
    text: str, *, channel: str = CHANNEL, uid: int | None = UID, now: float = ISSUED_AT + 1, certificate: str = CERTIFICATE
) -> AccessToken:
    return verify(text, app_id=APP_ID, certificate=certificate, channel=channel, uid=uid, now=now)


@pytest.mark.parametrize("vector", [GO, PYTHON])
def test_published_vectors_are_read_and_verified(vector: str) -> None:
    token = check(vector)
    assert (token.app_id, token.issued_at, token.lifetime, token.salt) == (APP_ID, ISSUED_AT, 600, 1)
    assert token.media == MediaService(CHANNEL, str(UID), {JOIN_CHANNEL: 600})
    assert token.expires_at == ISSUED_AT + 600


def test_token_with_several_services_is_verified() -> None:
    token = check(WITH_SIGNALLING)
    assert token.media is not None
    assert token.media.privileges == {1: 600, 2: 600, 3: 600, 4: 600}


def test_built_token_has_the_published_content() -> None:
    media = MediaService(CHANNEL, str(UID), {JOIN_CHANNEL: 600})
    text = build(APP_ID, CERTIFICATE, media, issued_at=ISSUED_AT, lifetime=600, salt=1)
    assert zlib.decompress(base64.b64decode(text[3:])) == zlib.decompress(base64.b64decode(PYTHON[3:]))


@pytest.mark.parametrize("uid", [UID, 1, None])
def test_token_without_uid_serves_anybody(uid: int | None) -> None:
    check(ANY_UID, uid=uid)


def test_uid_zero_means_anybody_when_building() -> None:
    media = MediaService(CHANNEL, "0", {JOIN_CHANNEL: 600})
    text = build(APP_ID, CERTIFICATE, media, issued_at=ISSUED_AT, lifetime=600, salt=1)
    assert zlib.decompress(base64.b64decode(text[3:])) == zlib.decompressobj().decompress(base64.b64decode(ANY_UID[3:]))


def test_expiry_is_the_earlier_of_token_and_privilege() -> None:
    def made(lifetime: int, join: int) -> AccessToken:
        media = MediaService("c", "1", {JOIN_CHANNEL: join})
        return parse(build(APP_ID, CERTIFICATE, media, issued_at=1000, lifetime=lifetime, salt=5))

    assert made(600, 0).expires_at == 1600
    assert made(600, 60).expires_at == 1060
    assert made(60, 600).expires_at == 1060


@pytest.mark.parametrize(
    ("text", "changes", "error"),
    [
        (PYTHON, {"now": ISSUED_AT + 600}, TokenExpired),
        (PYTHON, {"uid": 1}, TokenMismatch),
        (PYTHON, {"channel": "other"}, TokenMismatch),
        (PYTHON, {"certificate": "5CFd2fd1755d40ecb72977518be15d3c"}, TokenForged),
        (ONLY_SIGNALLING, {}, TokenMismatch),
        (PYTHON[3:], {}, TokenMalformed),
        ("007", {}, TokenMalformed),
        ("006" + PYTHON[3:], {}, TokenMalformed),
        (PYTHON[:40], {}, TokenMalformed),
        ("007" + "ä" * 20, {}, TokenMalformed),
        ("007" + "A" * 100_000, {}, TokenMalformed),
    ],
)
def test_wrong_tokens_are_refused(text: str, changes: dict[str, object], error: type[TokenError]) -> None:
    with pytest.raises(error) as caught:
        check(text, **changes)  # type: ignore[arg-type]  # the table mixes types
    assert PYTHON[10:30] not in str(caught.value)


def test_token_of_another_app_is_refused() -> None:
    media = MediaService(CHANNEL, "", {JOIN_CHANNEL: 600})
    text = build("a" * 32, CERTIFICATE, media, issued_at=ISSUED_AT, lifetime=600, salt=1)
    with pytest.raises(TokenForged):
        check(text)


def test_changed_content_is_refused() -> None:
    plain = bytearray(zlib.decompress(base64.b64decode(PYTHON[3:])))
    plain[-1] ^= 1
    with pytest.raises(TokenForged):
        check("007" + base64.b64encode(zlib.compress(bytes(plain))).decode())


def test_decompression_bomb_is_cut_off() -> None:
    bomb = base64.b64encode(zlib.compress(b"\x20\x00" + bytes(2_000_000), 9)).decode()
    assert len(bomb) < 4000
    with pytest.raises(TokenError):
        check("007" + bomb)
