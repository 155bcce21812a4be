"""Who is let into a channel."""

from http import HTTPStatus

import pytest
from pydantic import SecretStr

from recorder.access_token import JOIN_CHANNEL, MediaService, build
from recorder.hub.access import AppRights, Caller, Refused, admit, check_names, read_uid

APP, CERTIFICATE, NOW = "a" * 32, "c" * 32, 1_800_000_000
RIGHTS = AppRights(SecretStr(CERTIFICATE))


def token(uid: str = "7", channel: str = "room", lifetime: int = 600) -> str:
    media = MediaService(channel, uid, {JOIN_CHANNEL: lifetime})
    return build(APP, CERTIFICATE, media, issued_at=NOW, lifetime=lifetime, salt=3)


def knock(authorization: str | None, uid: int | None = 7, now: float = NOW) -> float | None:
    return admit(RIGHTS, Caller("192.0.2.1", "hub.example", None, authorization), app_id=APP, channel="room", uid=uid, now=now)


def refused(*arguments: object, **keywords: object) -> HTTPStatus:
    with pytest.raises(Refused) as caught:
        knock(*arguments, **keywords)  # type: ignore[arg-type]  # passed through
    return caught.value.status


def test_token_lets_in_until_it_expires() -> None:
    assert knock(f"Bearer {token()}") == NOW + 600
    assert knock(f"bearer {token('')}", uid=12) == NOW + 600
    assert knock(f"Bearer {token('12')}", uid=None) == NOW + 600


def test_wrong_tokens_do_not() -> None:
    assert refused(None) == HTTPStatus.UNAUTHORIZED
    assert refused("Bearer ") == HTTPStatus.UNAUTHORIZED
    assert refused("Basic abc") == HTTPStatus.UNAUTHORIZED
    assert refused(f"Bearer {token()}", now=NOW + 600) == HTTPStatus.UNAUTHORIZED
    assert refused(f"Bearer {token()[:-9]}") == HTTPStatus.UNAUTHORIZED
    assert refused(f"Bearer {token('8')}") == HTTPStatus.FORBIDDEN
    assert refused(f"Bearer {token(channel='other')}") == HTTPStatus.FORBIDDEN


@pytest.mark.parametrize(
    ("host", "origin", "welcome"),
    [
        ("127.0.0.1", None, True),
        ("::1", None, True),
        ("127.0.0.1", "http://127.0.0.1:8000", True),
        ("127.0.0.1", "http://localhost", True),
        ("127.0.0.1", "https://evil.example", False),
        ("127.0.0.1", "http://127.0.0.1.evil.example", False),
        ("127.0.0.1", "null", False),
        ("192.0.2.1", None, False),
        ("", None, False),
        ("127.0.0.1", "http://[", False),
    ],
)
def test_app_without_certificate_serves_this_machine_only(host: str, origin: str | None, welcome: bool) -> None:
    caller = Caller(host, "127.0.0.1:8083", origin, None)
    if welcome:
        assert admit(AppRights(), caller, app_id="x", channel="room", uid=1, now=NOW) is None
    else:
        with pytest.raises(Refused):
            admit(AppRights(), caller, app_id="x", channel="room", uid=1, now=NOW)
    assert admit(AppRights(open=True), caller, app_id="x", channel="room", uid=1, now=NOW) is None


@pytest.mark.parametrize(
    ("called", "welcome"),
    [
        ("localhost", True),
        ("127.0.0.2:8083", True),
        ("[::1]:8083", True),
        ("hub.example", False),  # a proxy on this machine that does not tell who is behind it
        ("hub.example:8083", False),
        ("127.0.0.1.evil.example", False),
        ("hub.example@127.0.0.1", True),  # no browser sends that
        ("[", False),
        ("", False),
    ],
)
def test_a_caller_of_this_machine_asks_for_this_machine(called: str, welcome: bool) -> None:
    caller = Caller("127.0.0.1", called, None, None)
    if welcome:
        assert admit(AppRights(), caller, app_id="x", channel="room", uid=1, now=NOW) is None
    else:
        with pytest.raises(Refused):
            admit(AppRights(), caller, app_id="x", channel="room", uid=1, now=NOW)


def test_names() -> None:
    check_names("demo", "abcXYZ019 !#$%&()+-:;<=.>?@[]^_{}|~,")
    for app_id, channel in (("", "c"), ("a/b", "c"), ("a" * 65, "c"), ("a", ""), ("a", "a/b"), ("a", "ä"), ("a", "c\n"), ("a", "c" * 65)):
        with pytest.raises(Refused):
            check_names(app_id, channel)


def test_uids() -> None:
    assert (read_uid("1"), read_uid("4294967295")) == (1, 4294967295)
    for text in ("", "0", "-1", "1.5", "4294967296", "٣", "99999999999", "1e3", " 1"):
        with pytest.raises(Refused):
            read_uid(text)
