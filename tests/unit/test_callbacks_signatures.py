"""What proves that a notice is ours."""

import base64
import json

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from api import signatures
from api.sending import Letter, compose

# The original's published example; the secret is the word itself.
BODY = (
    b'{"eventMs":1560408533119,"eventType":10,"noticeId":"4eb720f0-8da7-11e9-a43e-53f411c2761f","notifyMs":1560408533119,'
    b'"payload":{"a":"1","b":2},"productId":1}'
)


def now_ms() -> int:
    import time

    return time.time_ns() // 1_000_000


def test_the_published_vector() -> None:
    headers = signatures.headers("n", BODY, ["secret"], now_ms=1_560_408_533_119)
    assert headers["Agora-Signature"] == "033c62f40f687675f17f0f41f91a40c71c0f134c"
    assert headers["Agora-Signature-V2"] == "6d3320c60b11101395b7fc8f9068748808a0aa1bfa064438e39d1bc2c7d74d99"
    assert headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    "secret", [signatures.new_secret(), "an-old-secret", "whsec_no base64!", "whsec_"], ids=["new", "old", "odd", "empty"]
)
def test_the_public_library_verifies(secret: str) -> None:
    headers = signatures.headers("notice-1", BODY, [secret], now_ms=now_ms())
    if secret != "whsec_":  # an empty key, which their library does not take
        assert Webhook(signatures.standard_secret(secret)).verify(BODY, headers) == json.loads(BODY)


def test_their_own_vector() -> None:
    """From the specification's reference implementations."""
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
    headers = signatures.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", body, [secret], now_ms=1_614_265_330_000)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330")


@pytest.mark.parametrize("at", range(0, len(BODY), 7))
def test_a_changed_body_is_refused(at: int) -> None:
    secret = signatures.new_secret()
    headers = signatures.headers("n", BODY, [secret], now_ms=now_ms())
    changed = BODY[:at] + bytes([BODY[at] ^ 1]) + BODY[at + 1 :]
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(changed, headers)


def test_another_time_or_id_is_refused() -> None:
    secret = signatures.new_secret()
    headers = signatures.headers("n", BODY, [secret], now_ms=now_ms())
    for name, other in (("webhook-id", "m"), ("webhook-timestamp", str(now_ms() // 1000 - 1)), ("webhook-timestamp", "0")):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(BODY, headers | {name: other})


def test_both_secrets_of_a_rotation_verify() -> None:
    new, old = signatures.new_secret(), signatures.new_secret()
    headers = signatures.headers("n", BODY, [new, old], now_ms=now_ms())
    assert Webhook(new).verify(BODY, headers) == Webhook(old).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(signatures.new_secret()).verify(BODY, headers)
    assert headers["Agora-Signature"] == signatures.headers("n", BODY, [new], now_ms=now_ms())["Agora-Signature"]


def test_a_new_secret_has_256_random_bits() -> None:
    secrets = {signatures.new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert all(len(base64.b64decode(secret.removeprefix("whsec_"))) == 32 and secret.isascii() for secret in secrets)


@pytest.mark.parametrize("sid", ["d12fdce9024d37862a8f3a88e387c817", None])
def test_the_body_is_the_envelope_around_the_very_payload(sid: str | None) -> None:
    payload = '{"cname":"\\u00fc \\ud800","sequence":1,"sendts":1596555306257}'
    body = compose(Letter("31aeb35a9245cbd977cfe18b438b75ed", 40, 3, sid, payload), 1_596_555_306_283)
    assert body.endswith(b',"payload":' + payload.encode() + b"}")
    notice = json.loads(body)
    expected = {"noticeId": "31aeb35a9245cbd977cfe18b438b75ed", "productId": 3, "eventType": 40, "notifyMs": 1_596_555_306_283}
    assert notice == expected | ({"sid": sid} if sid else {}) | {"payload": json.loads(payload)}
