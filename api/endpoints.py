"""Where apps want their notices, with the secrets that sign them, and what could not be delivered there."""

import contextlib
import json
import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from api import audit, signatures
from api.accounts import AccountError, need_app, open_deployment, unix_ms
from api.audit import Action, Actor
from api.masterkey import MasterKey
from api.outbox import ALARMS, CLOUD_RECORDING
from api.quotas import waiting_callbacks
from api.sending import DELIVERED, Destination, Letter, Sender
from api.store import Store
from api.tables import App, Customer, Endpoint, Notice
from api.vault import Safe
from recorder.outbound import AddressPolicy, BadUrl, ForbiddenAddress
from recorder.outbound_http import open_client
from recorder.settings import Callbacks, ConfigError, Settings

OVERLAP_MS: Final = 24 * 3_600_000  # both secrets sign for so long after a rotation
LONGEST_URL: Final = 2048
EVENT_TYPES: Final = frozenset(
    (1, 2, 3, 4, 11, 12, 13, 30, 31, 32, 33, 34, 40, 41, 42, 43, 44, 45, 46, 47, 60, 61, 70, 71, 72, 73, 80, 81, 90, 100, 1001, *ALARMS)
)  # what may be selected
_SECRET: Final = re.compile(r"[\x21-\x7e]{8,128}", re.ASCII)
_DEAD_PAGE: Final = 100
# As the original's health check: what a test event met, where that was no status of HTTP.
_CODES: Final = {"timeout": 590, "unresolved": 591, "tls": 592}


class NoEndpoint(AccountError):
    """The app has none."""


@dataclass(frozen=True, slots=True)
class EndpointView:
    app_id: str
    url: str
    enabled: bool
    gone_ms: int | None  # when it answered 410 and was left alone from then on
    events: tuple[int, ...] | None  # None: every event type, no alarm
    old_secret_until_ms: int | None
    waiting: int
    dead: int


@dataclass(frozen=True, slots=True)
class Signing:
    """A new secret, on its way to the one who asked for it."""

    secret: str = field(repr=False)
    old_until_ms: int | None = None  # the one before signs, too, until then

    @property
    def standard(self) -> str:
        return signatures.standard_secret(self.secret)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    notice_id: str
    sid: str | None
    sequence: int | None
    event_type: int
    created_ms: int
    attempts: int
    failure: str | None  # of the last attempt: a status of HTTP, or a word
    dead_ms: int
    payload: str  # JSON text


@dataclass(frozen=True, slots=True)
class Tested:
    code: int  # a status of HTTP; 590 no answer in time, 591 no such host, 592 bad certificate, 0 otherwise no answer
    delivered: bool
    failure: str | None


class Signers:
    """Endpoints' secrets at rest."""

    def __init__(self, key: MasterKey) -> None:
        self.safe = Safe(key, "callback secret")

    def seal(self, app_id: str, secret: str) -> bytes:
        return self.safe.seal(secret.encode(), app_id)

    def open(self, endpoint: Endpoint, now_ms: int) -> tuple[str, ...]:
        """Those that are valid, the newest first.

        Raises:
            cryptography.exceptions.InvalidTag: they were sealed with another master key.
        """
        sealed = [endpoint.sealed_secret]
        if endpoint.sealed_old_secret is not None and (endpoint.old_until_ms or 0) > now_ms:
            sealed.append(endpoint.sealed_old_secret)
        return tuple(self.safe.open(one, endpoint.app_id).decode() for one in sealed)


class Endpoints:
    def __init__(self, *, store: Store, signers: Signers, sender: Sender, by: Actor, now_ms: Callable[[], int] = unix_ms) -> None:
        """`by`: whose doing the audit log says it is."""
        self._store = store
        self._by = by
        self._signers = signers
        self._sender = sender
        self._now_ms = now_ms

    def of(self, actor: Actor) -> "Endpoints":
        """The same, changed by somebody else."""
        return Endpoints(store=self._store, signers=self._signers, sender=self._sender, by=actor, now_ms=self._now_ms)

    async def show(self, app_id: str) -> EndpointView:
        """Raises:
        NoEndpoint
        """
        counted = select(Notice.state, func.count()).where(Notice.app_id == app_id, Notice.state != "sent").group_by(Notice.state)
        async with self._store.read() as session:
            endpoint = await _need_endpoint(session, app_id)
            counts = {row.state: row[1] for row in await session.execute(counted)}
        return EndpointView(
            app_id=app_id,
            url=endpoint.url,
            enabled=endpoint.enabled,
            gone_ms=endpoint.gone_ms,
            events=None if endpoint.event_types is None else tuple(endpoint.event_types),
            old_secret_until_ms=endpoint.old_until_ms if (endpoint.old_until_ms or 0) > self._now_ms() else None,
            waiting=counts.get("waiting", 0),
            dead=counts.get("dead", 0),
        )

    async def set(
        self, app_id: str, *, url: str, events: Sequence[int] | None = None, enabled: bool = True, secret: str | None = None
    ) -> Signing | None:
        """Say where notices go, and which. Returns the secret when the endpoint is new.

        What is waiting is tried at once when the URL is another one. `secret`: of a new endpoint, one that is in use already.

        Raises:
            AccountError: there is no such app, or something is wrong; every wrong field is named.
        """
        problems = [problem for problem in (await self._url_problem(url), _events_problem(events), _secret_problem(secret)) if problem]
        if problems:
            raise AccountError("; ".join(problems))
        now_ms = self._now_ms()
        selected = None if events is None else sorted(set(events))
        async with self._store.write() as session:
            await need_app(session, app_id)
            endpoint = await session.get(Endpoint, app_id, with_for_update=True)
            told = {"new": endpoint is None, "host": urlsplit(url).hostname, "events": selected, "enabled": enabled}  # a path may be secret
            self._note(session, Action.CALLBACKS_SET, app_id, told)
            if endpoint is None:
                secret = secret or signatures.new_secret()
                sealed = self._signers.seal(app_id, secret)
                session.add(
                    Endpoint(app_id=app_id, url=url, enabled=enabled, event_types=selected, sealed_secret=sealed, created_ms=now_ms)
                )
                return Signing(secret)
            if secret is not None:
                raise AccountError(f"app {app_id} has a secret already: rotate it")
            moved = endpoint.url != url
            endpoint.url, endpoint.enabled, endpoint.event_types, endpoint.gone_ms = url, enabled, selected, None
            waiting = update(Notice).where(Notice.app_id == app_id, Notice.state == "waiting").execution_options(synchronize_session=False)
            if not enabled:
                await session.execute(waiting.values(state="dead", failure="off", done_ms=now_ms))
            elif moved:
                await session.execute(waiting.values(next_ms=now_ms))
        return None

    async def remove(self, app_id: str) -> None:
        """Forget the endpoint and its secrets. What was not delivered stays a dead letter for a while."""
        async with self._store.write() as session:
            endpoint = await _need_endpoint(session, app_id)
            await session.delete(endpoint)
            self._note(session, Action.CALLBACKS_REMOVE, app_id)
            await session.execute(
                update(Notice)
                .where(Notice.app_id == app_id, Notice.state == "waiting")
                .values(state="dead", failure="off", done_ms=self._now_ms())
                .execution_options(synchronize_session=False)
            )

    async def rotate(self, app_id: str, *, secret: str | None = None, overlap_ms: int = OVERLAP_MS) -> Signing:
        """Sign with a new secret, and for `overlap_ms` with the one there is, too; an older one is not used any more."""
        problem = _secret_problem(secret)
        if problem:
            raise AccountError(problem)
        secret = secret or signatures.new_secret()
        until_ms = self._now_ms() + overlap_ms
        async with self._store.write() as session:
            endpoint = await _need_endpoint(session, app_id, to_change=True)
            endpoint.sealed_old_secret, endpoint.old_until_ms = (endpoint.sealed_secret, until_ms) if overlap_ms else (None, None)
            endpoint.sealed_secret = self._signers.seal(app_id, secret)
            self._note(session, Action.CALLBACKS_ROTATE, app_id, {"overlap_ms": overlap_ms})
        return Signing(secret, endpoint.old_until_ms)

    async def dead_letters(self, app_id: str, *, limit: int = _DEAD_PAGE, after: str | None = None) -> list[DeadLetter]:
        """The newest first. `after`: the noticeId of the last one before.

        Raises:
            AccountError: `after` is no dead letter of this app, or not any more.
        """
        wanted = select(Notice).where(Notice.app_id == app_id, Notice.state == "dead")
        async with self._store.read() as session:
            if after is not None:
                last = await session.scalar(wanted.where(Notice.notice_id == after))
                if last is None:
                    raise AccountError("after: is no dead letter of this app")
                wanted = wanted.where(
                    or_(Notice.done_ms < last.done_ms, and_(Notice.done_ms == last.done_ms, Notice.notice_id > last.notice_id))
                )
            rows = (await session.scalars(wanted.order_by(Notice.done_ms.desc(), Notice.notice_id).limit(limit))).all()
        return [
            DeadLetter(
                notice_id=row.notice_id,
                sid=row.sid,
                sequence=row.sequence,
                event_type=row.event_type,
                created_ms=row.created_ms,
                attempts=row.attempts,
                failure=row.failure,
                dead_ms=row.done_ms or 0,
                payload=row.payload,
            )
            for row in rows
        ]

    async def replay(self, app_id: str, notice_ids: Sequence[str] | None = None) -> int:
        """Send dead letters again under their ids, these or (None) all of them; returns how many.

        The oldest come first: no more than may wait by the quota of the customer.

        Raises:
            AccountError: nothing can be sent to this app now.
        """
        now_ms = self._now_ms()
        dead = (Notice.app_id == app_id, Notice.state == "dead")
        chosen = select(Notice.notice_id).where(*dead).order_by(Notice.done_ms, Notice.sequence)
        if notice_ids is not None:
            chosen = chosen.where(Notice.notice_id.in_(notice_ids))
        async with self._store.write() as session:
            endpoint = await _need_endpoint(session, app_id)
            if not endpoint.enabled or endpoint.gone_ms is not None:
                raise AccountError(f"the endpoint of app {app_id} is off: set it first")
            chosen = chosen.limit(await _room(session, app_id))
            again = (
                update(Notice)
                .where(*dead, Notice.notice_id.in_(chosen))
                .values(state="waiting", attempts=0, next_ms=now_ms, lease_ms=0, first_failed_ms=None, done_ms=None)
            )
            answered = await session.execute(again.returning(Notice.notice_id).execution_options(synchronize_session=False))
            count = len(answered.all())
            self._note(session, Action.CALLBACKS_REPLAY, app_id, {"notices": count})
            return count

    async def test(self, app_id: str) -> Tested:
        """Send one event that tells of no recording, now and once."""
        async with self._store.read() as session:
            endpoint = await _need_endpoint(session, app_id)
        now_ms = self._now_ms()
        outcome = await self._sender.send(
            _test_letter(now_ms), Destination(endpoint.url, self._signers.open(endpoint, now_ms)), attempt=0, now_ms=now_ms
        )
        failure = outcome.failure
        code = DELIVERED if failure is None else int(failure) if failure.isdecimal() else _CODES.get(failure, 0)
        return Tested(code, failure is None, failure)

    def _note(self, session: AsyncSession, action: Action, app_id: str, details: Mapping[str, object] | None = None) -> None:
        audit.add(session, self._by, action, app_id, at_ms=self._now_ms(), details=details)

    async def _url_problem(self, url: str) -> str | None:
        if len(url) > LONGEST_URL:
            return f"url: has more than {LONGEST_URL} characters"
        try:
            await self._sender.check(url)
        except BadUrl as error:
            return f"url: {error}"
        except ForbiddenAddress:
            return "url: its host has an address that is not allowed"
        return None


@contextlib.asynccontextmanager
async def open_sender(settings: Callbacks) -> AsyncIterator[Sender]:
    """Raises:
    ConfigError: `callbacks.authorities` cannot be read.
    """
    policy = AddressPolicy(settings.allowed_networks)
    async with contextlib.AsyncExitStack() as stack:
        try:
            client = await stack.enter_async_context(open_client(policy, plain_http=settings.allow_http, authorities=settings.authorities))
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(f"callbacks.authorities: {settings.authorities} is no PEM file that can be read") from error
        yield Sender(client)


@contextlib.asynccontextmanager
async def open_endpoints(settings: Settings, by: Actor) -> AsyncIterator[Endpoints]:
    """The endpoints of the deployment, beside a control plane that may be running; raises as `open_deployment`."""
    async with open_deployment(settings) as (store, key), open_sender(settings.callbacks) as sender:
        yield Endpoints(store=store, signers=Signers(key), sender=sender, by=by)


async def _need_endpoint(session: AsyncSession, app_id: str, *, to_change: bool = False) -> Endpoint:
    endpoint = await session.get(Endpoint, app_id, with_for_update=to_change)
    if endpoint is None:
        raise NoEndpoint(f"app {app_id} has no endpoint for callbacks")
    return endpoint


async def _room(session: AsyncSession, app_id: str) -> int | None:
    """How many notices more may wait; None: any number."""
    customer = await session.scalar(select(Customer).join(App, App.customer_id == Customer.id).where(App.id == app_id))
    if customer is None or customer.max_callbacks is None:
        return None
    return max(0, customer.max_callbacks - await waiting_callbacks(session, customer.id))


def _events_problem(events: Sequence[int] | None) -> str | None:
    if events is None or EVENT_TYPES.issuperset(events):
        return None
    return f"events: must be event types of cloud recording, or alarms from {ALARMS[0]} to {ALARMS[-1]}"


def _secret_problem(secret: str | None) -> str | None:
    if secret is None or _SECRET.fullmatch(secret):
        return None
    return "secret: must have 8 to 128 printable ASCII characters without spaces"


def _test_letter(now_ms: int) -> Letter:
    sid = "test_webhook"
    payload = {
        "cname": "test_webhook",
        "uid": "0",
        "sid": sid,
        "sequence": 0,
        "sendts": now_ms,
        "serviceType": 1,
        "serviceScene": "rtc_record",
        "details": {"msgName": "recorder_started", "status": 0},
    }
    return Letter(secrets.token_hex(16), 40, CLOUD_RECORDING, sid, json.dumps(payload, separators=(",", ":")))
