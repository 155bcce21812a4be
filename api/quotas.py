"""How many recordings an app, and a customer, may have at the same time."""

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from api.errors import Fault, ServiceError
from api.store import Store
from api.tables import App, Customer, Recording


class Quotas:
    def __init__(self, store: Store, *, per_app: int) -> None:
        """`per_app`: of apps that have no quota of their own."""
        self._store = store
        self._per_app = per_app

    async def look(self, app_id: str) -> None:
        """Raises:
        ServiceError: the app or its customer has as many as it may.
        """
        async with self._store.read() as session:
            await self._check(session, app_id, lock=False)

    async def admit(self, session: AsyncSession, app_id: str) -> None:
        """As `look`, in the transaction that adds a recording: two of them cannot take the last place."""
        await self._check(session, app_id, lock=True)

    async def _check(self, session: AsyncSession, app_id: str, *, lock: bool) -> None:
        app = await session.get(App, app_id, with_for_update=lock)
        if app is None or app.removed_ms is not None:
            raise ServiceError(Fault.INVALID_APP)
        customer = await session.get(Customer, app.customer_id, with_for_update=lock)
        assert customer
        most_of_app = app.max_recordings if app.max_recordings is not None else self._per_app
        live = select(func.count()).select_from(Recording).where(Recording.live)
        if (await session.scalar(live.where(Recording.app_id == app_id)) or 0) >= most_of_app:
            raise ServiceError(Fault.OVER_QUOTA)
        if customer.max_recordings is not None:
            apps = select(App.id).where(App.customer_id == customer.id)
            if (await session.scalar(live.where(Recording.app_id.in_(apps))) or 0) >= customer.max_recordings:
                raise ServiceError(Fault.OVER_QUOTA)
