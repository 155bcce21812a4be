"""How much an app, and a customer over all its apps, may have at the same time."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from sqlalchemy import bindparam, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from api.claims import WAITING
from api.errors import Fault, ServiceError
from api.store import Store
from api.tables import App, Customer, Notice, Recording, Slice
from recorder.spec import RecordingSpec


@dataclass(frozen=True, slots=True)
class Needs:
    """What a recording takes of its customer's quotas while it is live."""

    streams: int
    pixels: int  # per second

    @classmethod
    def of(cls, spec: RecordingSpec) -> "Needs":
        return cls(spec.most_streams, spec.pixels_per_second)


_LEAST: Final = Needs(streams=1, pixels=0)  # as acquire does not tell what will be started


class _Taken(NamedTuple):
    """By live recordings."""

    by_app: int  # recordings; all else by the customer
    recordings: int
    streams: int
    pixels: int


# Built once: each call runs them.
_OWNED: Final = (
    select(App, Customer).join(Customer, Customer.id == App.customer_id).where(App.id == bindparam("app_id"), App.removed_ms.is_(None))
)
_LOCKED: Final = _OWNED.with_for_update()
_APPS: Final = select(App.id).where(App.customer_id == bindparam("customer_id"))
_TAKEN: Final = select(
    func.count().filter(Recording.app_id == bindparam("app_id")),
    func.count(),
    func.coalesce(func.sum(Recording.streams), 0),
    func.coalesce(func.sum(Recording.pixels), 0),
).where(Recording.live, Recording.app_id.in_(_APPS))


class Quotas:
    def __init__(self, store: Store, *, per_app: int) -> None:
        """`per_app`: recordings of apps that have no quota of their own."""
        self._store = store
        self._per_app = per_app

    async def look(self, app_id: str) -> None:
        """Raises:
        ServiceError: the app or its customer has as much as it may, so that no recording can be started.
        """
        async with self._store.read() as session:
            await self._check(session, app_id, _LEAST, lock=False)

    async def admit(self, session: AsyncSession, app_id: str, needs: Needs) -> None:
        """As `look`, in the transaction that adds a recording: two of them cannot take the last place."""
        await self._check(session, app_id, needs, lock=True)

    async def widen(self, row: Recording, streams: int) -> None:
        """Count a live recording with `streams` from now on, if that is more than it had; raises as `look`.

        It stays so until the next change of its subscription, even when the node does not take this one.
        """
        if streams <= row.streams:
            return
        async with self._store.write() as session:
            app = await session.get_one(App, row.app_id)
            customer = await session.get_one(Customer, app.customer_id, with_for_update=True)
            current = await session.get(Recording, row.sid, with_for_update=True)
            if current is None or not current.live or streams <= current.streams:
                return
            taken = await _taken(session, app)
            _refuse_over(customer.max_streams, taken.streams - current.streams, streams)
            current.streams = streams

    async def _check(self, session: AsyncSession, app_id: str, needs: Needs, *, lock: bool) -> None:
        found = (await session.execute(_LOCKED if lock else _OWNED, {"app_id": app_id})).one_or_none()
        if found is None:
            raise ServiceError(Fault.INVALID_APP)
        app, customer = found
        taken = await _taken(session, app)
        _refuse_over(app.max_recordings if app.max_recordings is not None else self._per_app, taken.by_app, 1)
        _refuse_over(customer.max_recordings, taken.recordings, 1)
        _refuse_over(customer.max_streams, taken.streams, needs.streams)
        _refuse_over(customer.max_pixels, taken.pixels, needs.pixels)
        if customer.max_spool_bytes is not None:
            _refuse_over(customer.max_spool_bytes, await _unstored_bytes(session, customer.id), 1)


async def waiting_callbacks(session: AsyncSession, customer_id: str) -> int:
    """How many notices of all its apps wait for delivery. Nothing is locked: transactions at the same time do not see each other's."""
    waiting = select(func.count()).select_from(Notice).where(Notice.state == WAITING, Notice.app_id.in_(_APPS))
    return await session.scalar(waiting, {"customer_id": customer_id}) or 0


def _refuse_over(most: int | None, taken: int, wanted: int) -> None:
    """Who wants nothing is not refused, even where a quota was lowered below what is taken."""
    if most is not None and wanted > 0 and taken + wanted > most:
        raise ServiceError(Fault.OVER_QUOTA)


async def _taken(session: AsyncSession, app: App) -> _Taken:
    return _Taken(*map(int, (await session.execute(_TAKEN, {"app_id": app.id, "customer_id": app.customer_id})).one()))


async def _unstored_bytes(session: AsyncSession, customer_id: str) -> int:
    """What lies in spools to be brought to a store. Not what a node has lost, or has given up to bring."""
    waits = or_(~Recording.finished, Recording.sealed_spec.is_not(None))
    total = select(func.sum(Slice.size)).join(Recording, Recording.sid == Slice.sid)
    of_customer = total.where(Slice.stored.is_(None), waits, Recording.app_id.in_(_APPS))
    return int(await session.scalar(of_customer, {"customer_id": customer_id}) or 0)
