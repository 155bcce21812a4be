"""`GET /v1/ext/usage`: what a customer has used; a call of ours, beside the compatible API."""

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Self

from fastapi import APIRouter, Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.alias_generators import to_camel

from api import bill
from api.gateway import Guarded
from api.routes import CallerOf, router
from api.schemas.wire import Printable, wrong
from api.usage import Group, Row, Selection, Times, UsageReports, keys_of
from recorder.settings import Usage as Settings
from recorder.usage import Category

_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
GROUPS: Final[tuple[Group, ...]] = ("month", "day", "app", "channel", "session")


class UsageQuery(BaseModel):
    """The parameters of the call; validated with the customer's app ids and today's date as context."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    first: date | None = Field(None, alias="from", description="first UTC day, YYYY-MM-DD; default: the first of the month of `to`")
    last: date | None = Field(None, alias="to", description="last UTC day, included; default: today, or `from` when that is later")
    app: Printable | None = Field(None, description="only this app id")
    channel: Printable | None = Field(None, description="only channels of this name")
    group_by: Annotated[tuple[Group, ...], Field(min_length=1, max_length=5)] = Field(
        ("day",), alias="groupBy", description="what makes a row: one or more of month, day, app, channel, session, separated by commas"
    )
    limit: int = Field(100, ge=1, le=1000, description="most rows of an answer")
    after: Printable | None = Field(None, description="`next` of the answer before: the rows that follow; all else as before")

    @field_validator("first", "last", mode="before")
    @classmethod
    def _is_a_day(cls, text: object) -> object:
        try:
            if isinstance(text, str) and _DAY.fullmatch(text):  # Python reads other forms of ISO 8601, too
                return date.fromisoformat(text)
        except ValueError:
            pass  # no such day
        raise wrong("must be a day, YYYY-MM-DD")

    @field_validator("group_by", mode="before")
    @classmethod
    def _are_groups(cls, text: object) -> object:
        groups = str(text).split(",")
        if not set(groups) <= set(GROUPS) or len(set(groups)) < len(groups):
            raise wrong(f"must be some of {', '.join(GROUPS)}, each once, separated by commas")
        return groups

    @field_validator("app")
    @classmethod
    def _is_ones_own(cls, app: str | None, info: ValidationInfo) -> str | None:
        if app is not None and app not in info.context["apps"]:  # type: ignore[index]  # always given
            raise wrong("is not one of your app ids")
        return app

    @field_validator("after")
    @classmethod
    def _is_a_cursor(cls, after: str | None, info: ValidationInfo) -> str | None:
        if after is not None and "group_by" in info.data and _keys(after, len(keys_of(info.data["group_by"]))) is None:
            raise wrong("is no `next` of an answer with this groupBy")
        return after

    @model_validator(mode="after")
    def _goes_forward(self) -> Self:
        if self.first and self.last and self.first > self.last:
            raise wrong("from: must not be later than to", "order")
        return self

    def selection(self, customer_id: str, today: date) -> Selection:
        last = self.last or max(today, self.first or today)
        first = self.first or last.replace(day=1)
        return Selection(customer_id, first.isoformat(), last.isoformat(), self.app, self.channel)

    @property
    def after_keys(self) -> list[str] | None:
        return self.after and _keys(self.after, len(keys_of(self.group_by)))  # type: ignore[return-value]  # an empty one is None or wrong


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, validate_by_name=True, serialize_by_alias=True)


Seconds = dict[Category, float]


class UsageRow(_Answer):
    """One group. It names what it is grouped by; with `channel` also the app, with `session` also channel, app and mode."""

    month: str | None = None
    day: str | None = None
    app_id: str | None = None
    cname: str | None = None
    sid: str | None = None
    mode: Literal["individual", "mix"] | None = None
    sessions: int = Field(description="recordings that counted in this group")
    seconds: Seconds = Field(description="by category, to the millisecond; what is not there is 0")


class UsageMonth(_Answer):
    """All that was selected of a calendar month (UTC), whatever page this is. A bill is a whole month of all apps and channels."""

    month: str
    seconds: Seconds
    minutes: dict[Category, int] = Field(description="seconds of the month, divided by 60 and rounded up once")
    price: str | None = Field(None, description="minutes at the operator's prices, two decimals; absent when there are no prices")
    currency: str | None = None


class UsageAnswer(_Answer):
    first: str = Field(alias="from")
    last: str = Field(alias="to")
    group_by: list[Group]
    rows: list[UsageRow]
    months: list[UsageMonth]
    next: str | None = Field(None, description="`after` of the call that gets the next rows; absent: there are no more")


_WIRE: Final[Mapping[str, str]] = {"app": "appId", "channel": "cname"}


def columns(groups: Sequence[Group]) -> list[str]:
    """What rows of this grouping name, in the order in which they are sorted."""
    return [_WIRE.get(key, key) for key in keys_of(groups)]


def _parameters() -> list[dict[str, Any]]:
    schema = UsageQuery.model_json_schema(by_alias=True)["properties"]
    described = []
    for name, field in schema.items():
        kind = {key: value for key, value in field.items() if key not in ("description", "title", "default")}
        if name == "groupBy":
            kind = {"type": "string", "default": "day"}
        elif "anyOf" in kind:
            kind = kind["anyOf"][0]
        described.append({"name": name, "in": "query", "required": False, "description": field["description"], "schema": kind})
    return described


usage_router = APIRouter(route_class=Guarded, dependencies=router.dependencies, responses=router.responses)


def _reports(request: Request) -> UsageReports:
    found: UsageReports = request.app.state.usage
    return found


@usage_router.get("/v1/ext/usage", response_model_exclude_none=True, openapi_extra={"parameters": _parameters()})
async def usage(request: Request, who: CallerOf, reports: Annotated[UsageReports, Depends(_reports)]) -> UsageAnswer:
    """What the customer's recordings have used, in seconds by category, grouped as asked for; running ones up to a few seconds ago."""
    settings: Settings = request.app.state.usage_settings
    query = _parsed(request, await reports.apps(who.customer_id))
    selection = query.selection(who.customer_id, datetime.now(UTC).date())
    rows = await reports.rows(selection, query.group_by, after=query.after_keys, limit=query.limit + 1)
    shown = rows[: query.limit]
    return UsageAnswer(
        first=selection.first_day,
        last=selection.last_day,
        group_by=list(query.group_by),
        rows=[_row(row, settings) for row in shown],
        months=[_month(month, times, settings) for month, times in (await reports.months(selection)).items()],
        next=_cursor(list(shown[-1].keys.values())) if len(rows) > len(shown) else None,
    )


def _parsed(request: Request, apps: set[str]) -> UsageQuery:
    """Raises: RequestValidationError, which names every wrong parameter."""
    given = request.query_params.multi_items()
    names = [name for name, _ in given]
    problems: list[Any] = [
        {"type": "repeated", "loc": ("query", name), "msg": "must be given once"} for name in dict.fromkeys(names) if names.count(name) > 1
    ]
    query = None
    try:
        query = UsageQuery.model_validate(dict(given), context={"apps": apps})
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_context=False, include_input=False):
            problems.append({**detail, "loc": ("query", *detail["loc"])} if detail["loc"] else _spelled_out(detail["msg"]))
    if problems or query is None:
        raise RequestValidationError(problems)
    return query


def _spelled_out(text: str) -> dict[str, Any]:
    field, _, message = text.partition(": ")
    return {"type": "order", "loc": ("query", field), "msg": message}


def _row(row: Row, settings: Settings) -> UsageRow:
    names = {_WIRE.get(key, key): value for key, value in row.keys.items()}
    return UsageRow.model_validate({**names, "sessions": row.sessions, "seconds": _seconds(_shown(row.times, settings))})


def _month(month: str, measured: Times, settings: Settings) -> UsageMonth:
    times = _shown(measured, settings)
    price = str(bill.amount(times, settings.prices)) if settings.prices else None
    minutes = {category: bill.minutes(time) for category, time in times.items()}
    currency = settings.currency if price else None
    return UsageMonth(month=month, seconds=_seconds(times), minutes=minutes, price=price, currency=currency or None)


def _shown(times: Times, settings: Settings) -> Times:
    return bill.merged(times) if settings.merge_above_hd else times


def _seconds(times: Mapping[Category, int]) -> Seconds:
    return {category: float(Decimal(time) / 1000) for category, time in times.items()}


def _cursor(keys: list[str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(keys).encode()).decode().rstrip("=")


def _keys(cursor: str, count: int) -> list[str] | None:
    """The keys of the last row before; None when it is no cursor for so many."""
    try:
        keys = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        return None
    fits = isinstance(keys, list) and len(keys) == count and all(isinstance(key, str) and key.isprintable() for key in keys)
    return keys if fits else None
