"""Takes notices in: each is written in the transaction of the state change that it tells, so that neither is without the other.

`api.delivery` sends them.
"""

import asyncio
import json
import secrets
from collections.abc import Mapping
from typing import Final

from sqlalchemy import bindparam, event, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from api.quotas import waiting_callbacks
from api.tables import App, Customer, Endpoint, Notice, Recording
from recorder import metrics

CLOUD_RECORDING: Final = 3  # productId
OVER_QUOTA: Final = "over_quota"  # failure of a notice for which there is no room
_TOLD: Final = "recorder_outbox"  # of a session that tells of its commits
ALARMS: Final = range(10001, 10007)  # warnCodes of ours; an app that has not selected one does not get it

_WANTED: Final = (  # built once: each notice runs it
    select(Endpoint.enabled, Endpoint.gone_ms, Endpoint.event_types, App.customer_id, Customer.max_callbacks)
    .join(App, App.id == Endpoint.app_id)
    .join(Customer, Customer.id == App.customer_id)
    .where(Endpoint.app_id == bindparam("of"))
)


class Outbox:
    def __init__(self) -> None:
        self.filled = asyncio.Event()  # set after a commit with notices

    async def add(
        self,
        session: AsyncSession,
        *,
        app_id: str,
        sid: str | None,
        event_type: int,
        payload: Mapping[str, object],
        now_ms: int,
        alarm: int | None = None,
    ) -> str | None:
        """Write a notice in the transaction of `session`, when its app has an endpoint that wants it.

        With a `sid` the payload gets the member `sequence`, which counts the notices of that recording from 0 without a hole; the
        recording's row stays locked until the end of the transaction. `alarm` is the warnCode of an alarm: it must be selected by
        this number, where other notices are selected by `event_type`.

        What cannot be sent is a dead letter at once: the endpoint is gone, or as many notices wait as its customer may have waiting.

        Returns the noticeId, or None when the notice is not wanted; then it has taken no number.
        """
        endpoint = (await session.execute(_WANTED, {"of": app_id})).one_or_none()
        if endpoint is None or not endpoint.enabled or not selects(endpoint.event_types, event_type, alarm):
            return None
        sequence = None if sid is None else await _next_sequence(session, sid)
        notice = Notice(
            notice_id=secrets.token_hex(16),
            app_id=app_id,
            sid=sid,
            sequence=sequence,
            event_type=event_type,
            product_id=CLOUD_RECORDING,
            payload=json.dumps(payload if sequence is None else {**payload, "sequence": sequence}, separators=(",", ":")),
            created_ms=now_ms,
            next_ms=now_ms,
        )
        failure = None if endpoint.gone_ms is None else "gone"
        if failure is None and endpoint.max_callbacks is not None:
            full = await waiting_callbacks(session, endpoint.customer_id) >= endpoint.max_callbacks
            failure = OVER_QUOTA if full else None
        if failure:  # kept for a replay
            notice.state, notice.failure, notice.done_ms = "dead", failure, now_ms
            metrics.DEAD_LETTERS.inc()
        session.add(notice)
        if _TOLD not in session.info:
            session.info[_TOLD] = True
            event.listen(session.sync_session, "after_commit", lambda _session: self.filled.set())
        return notice.notice_id


def selects(event_types: list[int] | None, event_type: int, alarm: int | None = None) -> bool:
    """Whether an endpoint with this selection gets such a notice."""
    if event_types is None:
        return alarm is None
    return (event_type if alarm is None else alarm) in event_types


async def _next_sequence(session: AsyncSession, sid: str) -> int:
    table = Recording.__table__
    counted = update(table).where(table.c.sid == sid).values(notices=table.c.notices + 1).returning(table.c.notices)  # type: ignore[arg-type]  # it is a Table
    return int((await session.execute(counted)).scalar_one()) - 1
