"""Which notices may be sent now, and how a control plane makes them its own for a while.

Notices of a recording are claimed in runs, to be sent one after the other: in a burst each would otherwise wait for a turn at the
database of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Row, Select, and_, exists, literal_column, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from api.sending import Destination, Letter
from api.tables import Endpoint, Notice

HOLD_MS: Final = 60_000  # how long a notice waits behind one of the same recording that fails
LONGEST_RUN: Final = 16

# A literal, for with a parameter SQLite would not see that the partial indices fit.
WAITING: Final[ColumnElement[str]] = literal_column("'waiting'")


@dataclass(frozen=True, slots=True)
class Claim:
    letter: Letter
    app_id: str
    destination: Destination
    failures: int
    created_ms: int
    lease_ms: int  # until then it is ours


_COLUMNS: Final = (
    *(Notice.notice_id, Notice.event_type, Notice.product_id, Notice.sid, Notice.payload),
    *(Notice.sequence, Notice.attempts, Notice.created_ms),
)
Found = Row[str, int, int, str | None, str, int | None, int, int]


def due_endpoints(now_ms: int) -> Select[Endpoint]:
    """Those with something to send."""
    has_due = exists().where(Notice.app_id == Endpoint.app_id, _is_due(now_ms))
    return select(Endpoint).where(Endpoint.enabled, Endpoint.gone_ms.is_(None), has_due)


async def claim_runs(
    session: AsyncSession, app_id: str, destination: Destination, *, most: int, now_ms: int, lease_ms: int
) -> list[list[Claim]]:
    """At most `most` runs of the app's notices, which nobody else will send until `lease_ms`."""
    chosen = (
        select(*_COLUMNS)
        .where(Notice.app_id == app_id, _is_due(now_ms), ~_is_held(now_ms))
        .order_by(Notice.next_ms, Notice.sequence)
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    heads = (await session.execute(chosen)).all()
    following = await _followers(session, heads, now_ms)
    runs = [[_claim(row, app_id, destination, lease_ms) for row in (head, *following[head.notice_id])] for head in heads]
    claimed = [claim.letter.notice_id for run in runs for claim in run]
    leased = update(Notice).where(Notice.notice_id.in_(claimed)).values(lease_ms=lease_ms)
    await session.execute(leased.execution_options(synchronize_session=False))
    return runs


async def _followers(session: AsyncSession, heads: Sequence[Found], now_ms: int) -> dict[str, list[Found]]:
    """By the noticeId of the head of a run: what may follow it at once when it is taken. Nothing follows one that has failed before."""
    firsts = [(head.notice_id, head.sid, head.sequence) for head in heads if head.sequence is not None and head.attempts == 0]
    wanted = [(sid, sequence + step) for _, sid, sequence in firsts for step in range(1, LONGEST_RUN)]
    chosen = (
        select(*_COLUMNS)
        .where(tuple_(Notice.sid, Notice.sequence).in_(wanted), Notice.attempts == 0, _is_due(now_ms))
        .with_for_update(skip_locked=True)
    )
    found = {(row.sid, row.sequence): row for row in await session.execute(chosen)} if wanted else {}
    following: dict[str, list[Found]] = {head.notice_id: [] for head in heads}
    for notice_id, sid, sequence in firsts:
        for step in range(1, LONGEST_RUN):
            row = found.get((sid, sequence + step))
            if row is None:
                break
            following[notice_id].append(row)
    return following


def _claim(row: Found, app_id: str, destination: Destination, lease_ms: int) -> Claim:
    notice_id, event_type, product_id, sid, payload, _, attempts, created_ms = row
    return Claim(Letter(notice_id, event_type, product_id, sid, payload), app_id, destination, attempts, created_ms, lease_ms)


def _is_due(now_ms: int) -> ColumnElement[bool]:
    return and_(Notice.state == WAITING, Notice.next_ms <= now_ms, Notice.lease_ms <= now_ms)


def _is_held(now_ms: int) -> ColumnElement[bool]:
    """Whether an earlier notice of the same recording goes first: one not tried yet, or one that fails, for a while."""
    earlier = aliased(Notice)
    recently = now_ms - HOLD_MS
    return exists().where(
        earlier.sid == Notice.sid,
        earlier.state == WAITING,
        earlier.sequence < Notice.sequence,
        or_(earlier.first_failed_ms.is_(None), and_(earlier.first_failed_ms > recently, Notice.created_ms > recently)),
    )
