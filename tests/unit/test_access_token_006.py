"""Access tokens 006 against the test vectors published with the public token builders, and both formats against their description."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder import access_token, access_token_006
from recorder.access_token import JOIN_CHANNEL, PUBLISH_AUDIO, TokenError, TokenExpired, TokenForged, TokenMalformed, TokenMismatch
from recorder.access_token_006 import Token006, build, verify
from recorder.admission import check
from tests.tokens import token_006, token_007

APP_ID = "970CA35de60c44645bbae8a215061b33"
CERTIFICATE = "5CFd2fd1755d40ecb72977518be15d3b"
CHANNEL = "7d72365eb983485397e3e3f9d460bdda"
UID = 2882341273
ENDS_AT, PRIVILEGE_ENDS_AT = 1111111, 1446455471

ONE_USER = "006970CA35de60c44645bbae8a215061b33IACV0fZUBw+72cVoL9eyGGh3Q6Poi8bgjwVLnyKSJyOXR7dIfRBXoFHlEAABAAAAR/QQAAEAAQCvKDdW"
ANYBODY = "006970CA35de60c44645bbae8a215061b33IACw1o7htY6ISdNRtku3p9tjTPi0jCKf9t49UHJhzCmL6bdIfRAAAAAAEAABAAAAR/QQAAEAAQCvKDdW"
UID_WRITTEN_0 = "006970CA35de60c44645bbae8a215061b33IABNRUO/126HmzFc+J8lQFfnkssUdUXqiePeE2WNZ7lyubdIfRAh39v0EAABAAAAR/QQAAEAAQCvKDdW"
PUBLISHER = "006970CA35de60c44645bbae8a215061b33IACMv3I+fsRSejxy6luEwzA/1t/zbEHWfJCJ5m8ssFP/fLdIfRBXoFHlIgABAAAAR/QQAAQAAQCvKDdWAgCvKDdWAwCvKDdWBACvKDdW"  # noqa: E501  # published vector


def look(text: str, *, channel: str = CHANNEL, uid: int | None = UID, now: float = ENDS_AT - 1, certificate: str = CERTIFICATE) -> Token006:
    return verify(text, app_id=APP_ID, certificate=certificate, channel=channel, uid=uid, now=now)


def test_published_vectors_are_read_and_verified() -> None:
    token = look(ONE_USER)
    assert (token.ends_at, token.privileges) == (ENDS_AT, {JOIN_CHANNEL: PRIVILEGE_ENDS_AT})
    assert token.expires_at == ENDS_AT
    assert set(look(PUBLISHER).privileges) == {1, 2, 3, 4}


@pytest.mark.parametrize("vector", [ANYBODY, UID_WRITTEN_0])
@pytest.mark.parametrize("uid", [UID, 1, None])
def test_tokens_without_uid_serve_anybody(vector: str, uid: int | None) -> None:
    look(vector, uid=uid)


@pytest.mark.parametrize(("uid", "vector"), [(str(UID), ONE_USER), ("", ANYBODY), ("0", ANYBODY)])
def test_built_tokens_are_the_published_ones(uid: str, vector: str) -> None:
    privileges = {JOIN_CHANNEL: PRIVILEGE_ENDS_AT}
    assert build(APP_ID, CERTIFICATE, channel=CHANNEL, uid=uid, privileges=privileges, ends_at=ENDS_AT, salt=1) == vector


@pytest.mark.parametrize(
    ("ends_at", "privilege", "expected"), [(100, 0, 100), (100, 50, 50), (100, 200, 100)], ids=["token's", "privilege's", "the earlier"]
)
def test_expiry(ends_at: int, privilege: int, expected: int) -> None:
    text = token_006(APP_ID, CERTIFICATE, CHANNEL, UID, {JOIN_CHANNEL: privilege}, ends_at=ends_at)
    assert look(text, now=expected - 1).expires_at == expected
    with pytest.raises(TokenExpired):
        look(text, now=expected)


@pytest.mark.parametrize(
    ("text", "changes", "error"),
    [
        (ONE_USER, {"now": ENDS_AT}, TokenExpired),
        (ONE_USER, {"uid": 1}, TokenMismatch),
        (ONE_USER, {"uid": None}, TokenMismatch),  # nobody can tell for whom it is
        (ONE_USER, {"channel": "other"}, TokenMismatch),
        (ONE_USER, {"certificate": "5CFd2fd1755d40ecb72977518be15d3c"}, TokenForged),
        (ONE_USER.replace(APP_ID, "a" * 32), {}, TokenForged),
        (token_006(APP_ID, CERTIFICATE, CHANNEL, UID, {PUBLISH_AUDIO: 0}, ends_at=ENDS_AT), {}, TokenMismatch),
        (token_006(APP_ID, CERTIFICATE, CHANNEL, UID, {}, ends_at=ENDS_AT), {}, TokenMismatch),
        ("007" + ONE_USER[3:], {}, TokenMalformed),
        ("006", {}, TokenForged),
        ("006" + APP_ID, {}, TokenMalformed),
        (ONE_USER[:60], {}, TokenMalformed),
        (ONE_USER[:-4], {}, TokenMalformed),
        (ONE_USER[:-1] + "ä", {}, TokenMalformed),
        ("006" + APP_ID + "A" * 100_000, {}, TokenMalformed),
    ],
)
def test_wrong_tokens_are_refused(text: str, changes: dict[str, object], error: type[TokenError]) -> None:
    with pytest.raises(error) as caught:
        look(text, **changes)  # type: ignore[arg-type]  # the table mixes types
    assert ONE_USER[40:60] not in str(caught.value)


def test_no_changed_byte_passes() -> None:
    content = base64.b64decode(ONE_USER[35:])
    for at in {*range(len(content))} - {*range(34, 42)}:  # there stand the checksums, which are not signed and prove nothing
        changed = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        with pytest.raises(TokenError):
            look("006" + APP_ID + base64.b64encode(changed).decode())


@given(st.text(max_size=300) | st.binary(max_size=200).map(lambda content: "006" + APP_ID + base64.b64encode(content).decode()))
def test_nothing_else_is_a_token(text: str) -> None:
    with pytest.raises(TokenError):
        look(text)


# ---- both formats, from their description ------------------------------------------------------------------------

app_ids = st.text("abcdef0123456789", min_size=32, max_size=32)
certificates = st.text("abcdef0123456789", min_size=32, max_size=32)
channels = st.text("abcXYZ019 !#$%&()+-:;<=.>?@[]^_{}|~,", min_size=1, max_size=63)
uids = st.integers(0, 2**32 - 1)
privileges = st.dictionaries(st.integers(1, 4), st.integers(1, 86_400)).map(lambda chosen: {1: 600, **chosen})
NOW = 1_800_000_000


@given(app_ids, certificates, channels, uids, privileges, st.integers(1, 99_999_999))
def test_006_as_described(app_id: str, certificate: str, channel: str, uid: int, ends: dict[int, int], salt: int) -> None:
    until = {privilege: NOW + seconds for privilege, seconds in ends.items()}
    described = token_006(app_id, certificate, channel, uid, until, ends_at=NOW + 86_400, salt=salt)
    ours = access_token_006.build(app_id, certificate, channel=channel, uid=str(uid), privileges=until, ends_at=NOW + 86_400, salt=salt)
    assert ours == described
    assert check(described, app_id=app_id, certificate=certificate, channel=channel, uid=uid or 7, now=NOW) == until[1]


@given(app_ids, certificates, channels, uids, privileges, st.integers(1, 99_999_999))
def test_007_as_described(app_id: str, certificate: str, channel: str, uid: int, ends: dict[int, int], salt: int) -> None:
    described = token_007(app_id, certificate, channel, uid, ends, issued_at=NOW, seconds=86_400, salt=salt)
    media = access_token.MediaService(channel, str(uid), ends)
    assert access_token.build(app_id, certificate, media, issued_at=NOW, lifetime=86_400, salt=salt) == described
    assert check(described, app_id=app_id, certificate=certificate, channel=channel, uid=uid or 7, now=NOW) == NOW + ends[1]
