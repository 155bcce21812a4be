"""Finishes what a lost answer or a restart left half done: starts that nobody claimed, stops that did not arrive."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import SQLAlchemyError

from api import audit, lifecycle
from api.accounts import forget_expired
from api.bus import Bus, NoAnswer
from api.changes import Changes
from api.notices import Notices
from api.stops import Stops
from api.store import Store
from api.tables import Recording, SeenEvent
from api.vault import Vault
from recorder import metrics
from recorder.protocol import Load

log = logging.getLogger(__name__)

OFFER_AGAIN_MS: Final = 5_000  # later than any start waits for an answer
GIVE_UP_MS: Final = 60_000
LOOK_SECONDS: Final = 2.0
_DAY_MS: Final = 86_400_000

_MOST_OFFERS: Final = 2


class Recovery:
    def __init__(
        self,
        *,
        store: Store,
        bus: Bus,
        stops: Stops,
        vault: Vault,
        changes: Changes,
        notices: Notices,
        now_ms: Callable[[], int],
        rescue_days: float = 10,
        audit_days: float = 365,
    ) -> None:
        """`rescue_days`: how long after a recording's end its node tries to bring files that wait there; `audit_days`: of the audit log."""
        self._store = store
        self._bus = bus
        self._stops = stops
        self._vault = vault
        self._changes = changes
        self._notices = notices
        self._now_ms = now_ms
        self._keep_audit_ms = int(audit_days * _DAY_MS)
        self._keep_secrets_ms = int((rescue_days + 1) * _DAY_MS)  # by then the node has told that it has given up

    async def run(self) -> None:
        """Look after everything until cancelled."""
        while True:
            try:
                await self.look()
            except (SQLAlchemyError, OSError):
                log.exception("recovery could not look at the database")
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """One round; a second one changes nothing."""
        for sid, load in await self._settle_unclaimed():
            try:
                taken = await self._bus.offer(sid, load)
            except NoAnswer:
                taken = False
            log.warning("recording offered again", extra={"sid": sid, "taken": taken})
        await self._stops.deliver_pending()
        await forget_expired(self._store, self._now_ms())
        await audit.forget(self._store, self._now_ms() - self._keep_audit_ms)
        await self._wipe_secrets()
        await self._close_windows()
        async with self._store.read() as session:
            metrics.RECORDINGS_LIVE.set(await session.scalar(select(func.count()).select_from(Recording).where(Recording.live)) or 0)

    async def _close_windows(self) -> None:
        """Recordings that nobody can control any more stay so, even when somebody sets the clock back before the next start."""
        past = (~Recording.finished, Recording.control_until_ms > 0, Recording.control_until_ms <= self._now_ms())
        async with self._store.read() as session:
            if await session.scalar(select(Recording.sid).where(*past).limit(1)) is None:
                return
        async with self._store.write() as session:
            await session.execute(update(Recording).where(*past).values(control_until_ms=0))

    async def _wipe_secrets(self) -> None:
        """Of recordings whose node went away with files it should have brought."""
        too_old = self._now_ms() - self._keep_secrets_ms
        abandoned = (Recording.finished, Recording.sealed_spec.is_not(None), Recording.finished_ms <= too_old)
        async with self._store.read() as session:
            if await session.scalar(select(Recording.sid).where(*abandoned).limit(1)) is None:
                return
        async with self._store.write() as session:
            await session.execute(delete(SeenEvent).where(SeenEvent.sid.in_(select(Recording.sid).where(*abandoned))))
            await session.execute(update(Recording).where(*abandoned).values(sealed_spec=None))

    async def _settle_unclaimed(self) -> list[tuple[str, Load]]:
        """End what nobody claimed in time; returns what is to be offered once more, and what it takes of a node."""
        now_ms = self._now_ms()
        again: list[tuple[str, Load]] = []
        given_up = []
        async with self._store.write() as session:
            unclaimed = await session.scalars(
                select(Recording)
                .where(~Recording.finished, Recording.node.is_(None), Recording.created_ms <= now_ms - OFFER_AGAIN_MS)
                .with_for_update(skip_locked=True)
            )
            for row in unclaimed:
                if row.created_ms <= now_ms - GIVE_UP_MS:
                    lifecycle.finish(row, outcome="failed", reason="crashed", uploading="unknown", now_ms=now_ms)
                    await self._notices.tell_never_begun(session, row, "failed", "crashed")
                    given_up.append(row.sid)
                elif row.offers < _MOST_OFFERS:
                    assert row.sealed_spec  # wiped only when finished
                    row.offers += 1
                    try:
                        again.append((row.sid, Load.of(self._vault.open(row.sealed_spec, app_id=row.app_id, sid=row.sid))))
                    except InvalidTag:
                        log.exception("a recording was sealed with another master key", extra={"sid": row.sid})
        for sid in given_up:
            log.error("recording failed: no node claimed it", extra={"sid": sid})
            metrics.RECORDINGS_ENDED.labels("failed", "crashed").inc()
            self._changes.tell(sid)
        return again
