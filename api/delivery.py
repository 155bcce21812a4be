"""Delivers what the outbox holds: in order within a recording, again when it fails, and each app apart from the others.

Several control planes may do so on one database: a notice is leased to the one that is sending it. Who dies while sending leaves
a lease that ends; the notice is then sent again under the same id, so that it arrives at least once.
"""

import asyncio
import contextlib
import logging
import secrets
from asyncio import TaskGroup
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from sqlalchemy import ColumnElement, and_, bindparam, delete, exists, func, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from api import retries
from api.claims import WAITING, Claim, claim_runs, due_endpoints
from api.endpoints import Signers
from api.hosts import Hosts
from api.outbox import Outbox
from api.retries import Schedule
from api.sending import GONE, Destination, Outcome, Sender
from api.store import Store
from api.tables import Endpoint, Notice
from recorder import metrics
from recorder.outbound import BadUrl, Place

log = logging.getLogger(__name__)

LEASE_MS: Final = 20_000  # twice what an attempt takes at most
_ATTEMPT_MS: Final = 11_000
LOOK_SECONDS: Final = 1.0
TIDY_SECONDS: Final = 10.0
KEEP_SENT_MS: Final = 7 * 86_400_000
KEEP_DEAD_MS: Final = 30 * 86_400_000
_MOST_AT_ONCE: Final = 512  # to all hosts
_MOST_DELETED: Final = 1000  # at once, so that nobody waits long for the database

_notices: Final = Notice.__table__
_DELIVERED: Final = (
    update(_notices)  # type: ignore[arg-type]  # it is a Table
    .where(_notices.c.notice_id == bindparam("delivered"))
    .values(state="sent", attempts=bindparam("tries"), notify_ms=bindparam("at"), done_ms=bindparam("end"), failure=None, lease_ms=0)
)


@dataclass(frozen=True, slots=True)
class _Run:
    """Notices of one recording, or one alone."""

    host: str
    claims: tuple[Claim, ...]


@dataclass(frozen=True, slots=True)
class _Result:
    claim: Claim
    outcome: Outcome
    notify_ms: int
    ended_ms: int


class Delivery:
    def __init__(
        self,
        *,
        store: Store,
        outbox: Outbox,
        sender: Sender,
        signers: Signers,
        schedule: Schedule,
        now_ms: Callable[[], int],
        hosts: Hosts | None = None,
        lease_ms: int = LEASE_MS,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._sender = sender
        self._signers = signers
        self._schedule = schedule
        self._now_ms = now_ms
        self._hosts = hosts or Hosts()
        self._lease_ms = lease_ms
        self._random = secrets.SystemRandom()
        self._results: list[_Result] = []
        self._released: list[Claim] = []  # not tried after all
        self._under_way = 0
        self._resting: dict[tuple[str, str], int] = {}  # app id and URL → until when that receiver wants to be left alone

    async def run(self) -> None:
        """Deliver until cancelled."""
        clock = asyncio.get_running_loop().time
        tidied = clock() - TIDY_SECONDS
        async with TaskGroup() as group:
            while True:
                self._outbox.filled.clear()
                try:
                    await self.look(group)
                    if clock() - tidied >= TIDY_SECONDS:
                        tidied = clock()
                        await self.tidy()
                except (SQLAlchemyError, OSError):
                    log.exception("delivery could not use the database")
                    await asyncio.sleep(LOOK_SECONDS)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._outbox.filled.wait()

    async def look(self, group: TaskGroup) -> None:
        """Write down how attempts ended, and begin those that are due in `group`."""
        results, released = list(self._results), list(self._released)
        if not results and not released and not await self._is_anything_due():
            return
        async with self._store.write() as session:
            await _deliver(session, [result for result in results if result.outcome.failure is None])
            for result in results:
                if result.outcome.failure is not None:
                    await self._settle_failure(session, result)
            await _release(session, released)
            runs = await self._claim_due(session)
        del self._results[: len(results)]
        del self._released[: len(released)]
        for run in runs:
            self._hosts.begin(run.host)
            self._under_way += 1
            group.create_task(self._send(run))

    async def tidy(self) -> None:
        """Let go of what is old and of what has no receiver any more, and count the rest."""
        now_ms = self._now_ms()
        self._resting = {where: until_ms for where, until_ms in self._resting.items() if until_ms > now_ms}
        active = exists().where(Endpoint.app_id == Notice.app_id, Endpoint.enabled, Endpoint.gone_ms.is_(None))
        async with self._store.read() as session:
            counts = await session.execute(select(Notice.state, func.count()).where(Notice.state != "sent").group_by(Notice.state))
            states = {row.state: row[1] for row in counts}
            lost = await session.scalar(select(Notice.notice_id).where(Notice.state == WAITING, ~active).limit(1))
            old = or_(
                and_(Notice.state == "sent", Notice.done_ms < now_ms - KEEP_SENT_MS),
                and_(Notice.state == "dead", Notice.done_ms < now_ms - KEEP_DEAD_MS),
            )
            outdated = (await session.scalars(select(Notice.notice_id).where(Notice.state != WAITING, old).limit(_MOST_DELETED))).all()
        metrics.CALLBACKS_WAITING.set(states.get("waiting", 0))
        metrics.CALLBACKS_DEAD.set(states.get("dead", 0))
        metrics.CALLBACK_HOSTS_OPEN.set(self._hosts.open)
        if not lost and not outdated:
            return
        async with self._store.write() as session:
            await session.execute(delete(Notice).where(Notice.notice_id.in_(outdated)).execution_options(synchronize_session=False))
            await _give_up(session, ~active, "off", now_ms)

    async def _is_anything_due(self) -> bool:
        async with self._store.read() as session:
            return await session.scalar(due_endpoints(self._now_ms()).limit(1)) is not None

    async def _claim_due(self, session: AsyncSession) -> list[_Run]:
        now_ms = self._now_ms()
        endpoints = list((await session.scalars(due_endpoints(now_ms))).all())
        self._random.shuffle(endpoints)  # none is always the last to be given room
        runs: list[_Run] = []
        taken: Counter[str] = Counter()
        for endpoint in endpoints:
            if self._resting.get((endpoint.app_id, endpoint.url), 0) > now_ms:
                continue
            host = _host(endpoint.url)
            room = min(self._hosts.room(host) - taken[host], _MOST_AT_ONCE - self._under_way - len(runs))
            destination = self._destination(endpoint, now_ms) if room > 0 else None
            if destination:
                lease_ms = now_ms + self._lease_ms
                found = await claim_runs(session, endpoint.app_id, destination, most=room, now_ms=now_ms, lease_ms=lease_ms)
                taken[host] += len(found)
                runs += [_Run(host, tuple(claims)) for claims in found]
        return runs

    def _destination(self, endpoint: Endpoint, now_ms: int) -> Destination | None:
        try:
            return Destination(endpoint.url, self._signers.open(endpoint, now_ms))
        except InvalidTag:
            log.exception("the secret of an endpoint was sealed with another master key", extra={"app": endpoint.app_id})
            return None

    async def _send(self, run: _Run) -> None:
        """One after the other, until one fails: the others are then for a later run, as they are when the lease ends."""
        tried, answered = 0, False
        try:
            for claim in run.claims:
                if tried and self._now_ms() > claim.lease_ms - _ATTEMPT_MS:
                    break
                outcome = await self._attempt(claim)
                tried, answered = tried + 1, outcome.answered
                if outcome.failure is not None:
                    break
        finally:
            self._under_way -= 1
            self._hosts.end(run.host, answered=answered)
        self._released += run.claims[tried:]
        self._outbox.filled.set()

    async def _attempt(self, claim: Claim) -> Outcome:
        started_ms = self._now_ms()
        if claim.failures == 0:
            metrics.CALLBACK_SECONDS.observe(max(0, started_ms - claim.created_ms) / 1000)
        outcome = Outcome("error", answered=False)
        try:
            outcome = await self._sender.send(claim.letter, claim.destination, attempt=claim.failures, now_ms=started_ms)
        except Exception:  # one receiver, whatever it does, is no reason to stop delivering to the others
            log.exception("an attempt to deliver a notice broke", extra={"app": claim.app_id, "notice": claim.letter.notice_id})
        if outcome.rest_until_ms > started_ms:
            self._resting[claim.app_id, claim.destination.url] = outcome.rest_until_ms
        self._results.append(_Result(claim, outcome, started_ms, self._now_ms()))
        self._outbox.filled.set()
        return outcome

    async def _settle_failure(self, session: AsyncSession, result: _Result) -> None:
        claim, outcome, ended_ms = result.claim, result.outcome, result.ended_ms
        tried = {"attempts": claim.failures + 1, "notify_ms": result.notify_ms, "failure": outcome.failure, "lease_ms": 0}
        still_ours = (  # when this one was slow another control plane may have it by now, or it was given up or delivered
            update(Notice)
            .where(Notice.notice_id == claim.letter.notice_id, Notice.state == WAITING, Notice.lease_ms == claim.lease_ms)
            .execution_options(synchronize_session=False)
        )
        url = await session.scalar(select(Endpoint.url).where(Endpoint.app_id == claim.app_id))
        if url not in (None, claim.destination.url):  # it has moved meanwhile; what its former place said does not count there
            await session.execute(still_ours.values(**tried, next_ms=ended_ms))
            return
        again_ms = retries.next_ms(self._schedule, claim.failures + 1, ended_ms, self._random.random)
        gone = outcome.failure == str(GONE)
        if again_ms is None or gone:
            dead = still_ours.values(**tried, state="dead", done_ms=ended_ms).returning(Notice.notice_id)
            if (await session.execute(dead)).first():
                metrics.DEAD_LETTERS.inc()
                log.error("notice given up", extra={"app": claim.app_id, "sid": claim.letter.sid, "failure": outcome.failure})
            if gone:
                await _disable(session, claim, ended_ms)
            return
        first_failed_ms = func.coalesce(Notice.first_failed_ms, ended_ms)
        next_ms = max(again_ms, outcome.rest_until_ms)
        await session.execute(still_ours.values(**tried, first_failed_ms=first_failed_ms, next_ms=next_ms))


async def _deliver(session: AsyncSession, results: list[_Result]) -> None:
    if not results:
        return
    rows = [
        {"delivered": result.claim.letter.notice_id, "tries": result.claim.failures + 1, "at": result.notify_ms, "end": result.ended_ms}
        for result in results
    ]
    connection = await session.connection()
    await connection.execute(_DELIVERED, rows)


async def _release(session: AsyncSession, claims: list[Claim]) -> None:
    for lease_ms in {claim.lease_ms for claim in claims}:
        ours = [claim.letter.notice_id for claim in claims if claim.lease_ms == lease_ms]
        freed = update(Notice).where(Notice.notice_id.in_(ours), Notice.lease_ms == lease_ms, Notice.state == WAITING)
        await session.execute(freed.values(lease_ms=0).execution_options(synchronize_session=False))


async def _disable(session: AsyncSession, claim: Claim, now_ms: int) -> None:
    """The receiver says that it is gone for good: nothing more is sent to it until its owner sets it anew."""
    told = await session.execute(
        update(Endpoint)
        .where(Endpoint.app_id == claim.app_id, Endpoint.url == claim.destination.url, Endpoint.gone_ms.is_(None))
        .values(gone_ms=now_ms)
        .returning(Endpoint.app_id)
        .execution_options(synchronize_session=False)
    )
    if told.first() is None:
        return
    log.error("endpoint disabled: it answers that it is gone", extra={"app": claim.app_id})
    await _give_up(session, Notice.app_id == claim.app_id, "gone", now_ms)


async def _give_up(session: AsyncSession, which: ColumnElement[bool], why: str, now_ms: int) -> None:
    given_up = (
        update(Notice)
        .where(Notice.state == WAITING, which)
        .values(state="dead", failure=why, done_ms=now_ms)
        .returning(Notice.notice_id)
        .execution_options(synchronize_session=False)
    )
    metrics.DEAD_LETTERS.inc(len((await session.execute(given_up)).all()))


def _host(url: str) -> str:
    try:
        return Place.of(url).authority
    except BadUrl:
        return ""
