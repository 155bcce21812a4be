"""One attempt to deliver one notice: the body, its signatures, the request."""

import json
from dataclasses import dataclass, field
from typing import Final

from api import retries, signatures
from recorder import metrics
from recorder.outbound import ForbiddenAddress
from recorder.outbound_http import OutboundClient, Unanswered

DELIVERED: Final = 200  # no other status is a success
GONE: Final = 410


@dataclass(frozen=True, slots=True)
class Destination:
    url: str
    signers: tuple[str, ...] = field(repr=False)  # the newest secret first


@dataclass(frozen=True, slots=True)
class Letter:
    """A notice as it is sent; all but the time of sending is the same at each attempt."""

    notice_id: str
    event_type: int
    product_id: int
    sid: str | None
    payload: str  # JSON text


@dataclass(frozen=True, slots=True)
class Outcome:
    failure: str | None  # None: delivered; a status of HTTP, or a word of `recorder.outbound_http.Why`
    answered: bool
    rest_until_ms: int = 0  # the receiver wants to be left alone until then


class Sender:
    def __init__(self, client: OutboundClient) -> None:
        self._client = client

    async def check(self, url: str) -> None:
        """Raises:
        BadUrl, ForbiddenAddress
        """
        try:
            await self._client.check(url)
        except ForbiddenAddress:
            metrics.SSRF_BLOCKED.labels("callback").inc()
            raise

    async def send(self, letter: Letter, destination: Destination, *, attempt: int, now_ms: int) -> Outcome:
        """`attempt` counts from 0.

        The headers of the original have room for one signature. While two secrets are valid they change with every attempt: the
        first retry is at once, so a receiver with either secret is served without delay.
        """
        turn = attempt % len(destination.signers)
        signers = destination.signers[turn:] + destination.signers[:turn]
        body = compose(letter, now_ms)
        try:
            answer = await self._client.post(destination.url, body, signatures.headers(letter.notice_id, body, signers, now_ms=now_ms))
        except Unanswered as error:
            metrics.CALLBACKS.labels(error.why).inc()
            if error.why == "forbidden":
                metrics.SSRF_BLOCKED.labels("callback").inc()
            return Outcome(error.why, answered=False)
        delivered = answer.status == DELIVERED
        metrics.CALLBACKS.labels("delivered" if delivered else "refused").inc()
        rest = retries.rest_until_ms(answer.status, answer.retry_after, now_ms)
        return Outcome(None if delivered else str(answer.status), answered=True, rest_until_ms=rest)


def compose(letter: Letter, now_ms: int) -> bytes:
    """The body. The payload stays the text that it is: signatures are over bytes."""
    envelope: dict[str, object] = {
        "noticeId": letter.notice_id,
        "productId": letter.product_id,
        "eventType": letter.event_type,
        "notifyMs": now_ms,
    }
    if letter.sid is not None:
        envelope["sid"] = letter.sid
    head = json.dumps(envelope, separators=(",", ":"))
    return f'{head[:-1]},"payload":{letter.payload}}}'.encode()
