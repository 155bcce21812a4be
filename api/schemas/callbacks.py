"""The bodies of the calls about callbacks, ours beside the compatible API."""

import json
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr
from pydantic.alias_generators import to_camel

from api import endpoints
from api.endpoints import EVENT_TYPES, LONGEST_URL
from api.schemas.wire import Wire, wrong
from recorder.outbound import BadUrl, Place

_MOST_HOURS: Final = 24 * 30


def _callback_url(text: str) -> str:
    try:
        Place.of(text)
    except BadUrl as error:
        raise wrong(f"is {error}") from error
    return text


def _event_type(number: int) -> int:
    if number not in EVENT_TYPES:
        raise wrong("is no event type of cloud recording, nor an alarm from 10001 to 10006")
    return number


CallbackUrl = Annotated[
    str,
    AfterValidator(_callback_url),
    Field(min_length=1, max_length=LONGEST_URL, description="https, unless the operator allows http; no login in it"),
]
EventType = Annotated[int, AfterValidator(_event_type), Field(json_schema_extra={"enum": sorted(EVENT_TYPES)})]
KnownSecret = Annotated[SecretStr, Field(min_length=8, max_length=128, json_schema_extra={"pattern": "^[!-~]{8,128}$"})]


class EndpointRequest(Wire):
    """Replaces the whole endpoint but its secret."""

    url: CallbackUrl
    events: list[EventType] | None = Field(None, max_length=len(EVENT_TYPES), description="event types; null: all of them, no alarms")
    enabled: bool = Field(True, description="false: nothing is sent or kept")


class RotateRequest(Wire):
    secret: KnownSecret | None = Field(None, description="one of your own; default: a new one is made")
    old_hours: float = Field(24, ge=0, le=_MOST_HOURS, description="how long the secret there is signs, too")


class ReplayRequest(Wire):
    notice_ids: list[Annotated[str, Field(max_length=64)]] | None = Field(None, max_length=1000, description="null: all dead letters")


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, validate_by_name=True, serialize_by_alias=True)


class Endpoint(_Answer):
    url: str
    events: list[int] | None = Field(None, description="event types; absent: all of them, no alarms")
    enabled: bool
    gone_ms: int | None = Field(None, description="when it answered 410; nothing is sent until it is set again")
    old_secret_until_ms: int | None = Field(None, description="until then the secret before the last rotation signs, too")
    waiting: int = Field(description="notices not delivered yet")
    dead: int = Field(description="notices given up, which can be replayed")
    secret: str | None = Field(None, description="of a new endpoint; it is not shown again")
    standard_secret: str | None = Field(None, description="the same secret as libraries of Standard Webhooks take it")


class Rotated(_Answer):
    secret: str
    standard_secret: str
    old_secret_until_ms: int | None = None


class TestResult(_Answer):
    code: int = Field(description="the status of HTTP; 590: no answer in 10 s, 591: no such host, 592: bad certificate, 0: no answer")
    delivered: bool
    failure: str | None = None


class DeadLetter(_Answer):
    notice_id: str
    sid: str | None = None
    sequence: int | None = None
    event_type: int
    created_ms: int
    dead_ms: int
    attempts: int
    failure: str | None = Field(None, description="of the last attempt: a status of HTTP, or a word")
    payload: dict[str, Any]


class DeadLetters(_Answer):
    notices: list[DeadLetter]
    next: str | None = Field(None, description="`after` of the call that gets the next ones; absent: there are no more")


class Replayed(_Answer):
    replayed: int


def endpoint(view: endpoints.EndpointView, signing: endpoints.Signing | None = None) -> Endpoint:
    return Endpoint(
        url=view.url,
        events=None if view.events is None else list(view.events),
        enabled=view.enabled,
        gone_ms=view.gone_ms,
        old_secret_until_ms=view.old_secret_until_ms,
        waiting=view.waiting,
        dead=view.dead,
        secret=signing.secret if signing else None,
        standard_secret=signing.standard if signing else None,
    )


def dead_letter(letter: endpoints.DeadLetter) -> DeadLetter:
    return DeadLetter(
        notice_id=letter.notice_id,
        sid=letter.sid,
        sequence=letter.sequence,
        event_type=letter.event_type,
        created_ms=letter.created_ms,
        dead_ms=letter.dead_ms,
        attempts=letter.attempts,
        failure=letter.failure,
        payload=json.loads(letter.payload),
    )
