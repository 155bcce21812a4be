"""A control plane's delivery alone, on a database of its own, for tests that make the events themselves."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import func, select

from api.accounts import Accounts, unix_ms
from api.audit import SERVICE
from api.delivery import LEASE_MS, Delivery
from api.endpoints import Endpoints, Signers, open_sender
from api.hosts import Hosts
from api.masterkey import MasterKey
from api.outbox import Outbox
from api.sending import Sender
from api.store import Store, open_store
from api.tables import Notice, Recording
from recorder.settings import Callbacks

KEY = MasterKey(b"k" * 32)
LOOPBACK = ("127.0.0.0/8",)
_numbers = itertools.count()


class Clock:
    """Unix milliseconds that pass when they are told to."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms

    def seconds(self) -> float:
        return self.now_ms / 1000


@dataclass
class Office:
    store: Store
    outbox: Outbox
    delivery: Delivery
    endpoints: Endpoints
    now_ms: Callable[[], int]
    secrets: dict[str, str] = field(default_factory=dict)  # by app

    async def app(self, url: str, events: list[int] | None = None, app_id: str | None = None) -> str:
        """A customer's app with an endpoint."""
        app_id = app_id or f"app{next(_numbers)}"
        await Accounts(self.store, KEY, by=SERVICE).create("customer", app_id=app_id)
        signing = await self.endpoints.set(app_id, url=url, events=events)
        assert signing
        self.secrets[app_id] = signing.secret
        return app_id

    async def recording(self, app_id: str) -> str:
        """The sid of a new one."""
        number = next(_numbers)
        sid = f"{number:032x}"
        row = Recording(
            sid=sid,
            app_id=app_id,
            channel=f"room {number}",
            uid=7,
            mode="mix",
            resource_key=sid,
            created_ms=self.now_ms(),
            control_until_ms=self.now_ms(),
            listing="none",
            prefix="",
            audio=True,
            video=True,
        )
        async with self.store.write() as session:
            session.add(row)
        return sid

    async def say(self, app_id: str, sid: str | None, *event_types: int) -> list[str | None]:
        """One transaction with an event of each type; returns the noticeIds."""
        async with self.store.write() as session:
            return [
                await self.outbox.add(
                    session,
                    app_id=app_id,
                    sid=sid,
                    event_type=event_type,
                    payload={"sid": sid, "details": {"msgName": "ü"}},
                    now_ms=self.now_ms(),
                )
                for event_type in event_types
            ]

    async def notices(self, **where: object) -> list[Notice]:
        async with self.store.read() as session:
            return list((await session.scalars(select(Notice).filter_by(**where).order_by(Notice.sid, Notice.sequence))).all())

    async def count(self, state: str) -> int:
        async with self.store.read() as session:
            return await session.scalar(select(func.count()).select_from(Notice).where(Notice.state == state)) or 0

    async def round(self) -> None:
        """Attempt what is due now, to its end."""
        async with asyncio.TaskGroup() as group:
            await self.delivery.look(group)
        async with asyncio.TaskGroup() as group:
            await self.delivery.look(group)  # writes down how it went; what that makes due is attempted, too

    async def until_none_waits(self, seconds: float = 30) -> None:
        async with asyncio.timeout(seconds):
            while await self.count("waiting"):
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def office(
    data: Path,
    *,
    settings: Callbacks | None = None,
    now_ms: Callable[[], int] = unix_ms,
    sender: Sender | None = None,
    hosts: Hosts | None = None,
    database_url: str | None = None,
    lease_ms: int = LEASE_MS,
) -> AsyncIterator[Office]:
    """`sender`: one of the test's instead of the real one."""
    settings = settings or Callbacks(allow_http=True, allowed_networks=LOOPBACK)
    url = database_url or f"sqlite+aiosqlite:///{data / 'recorder.db'}"
    async with open_store(url) as store, open_sender(settings) as real:
        outbox, signers = Outbox(), Signers(KEY)
        sending = sender or real
        delivery = Delivery(
            store=store,
            outbox=outbox,
            sender=sending,
            signers=signers,
            schedule=settings.retries,
            now_ms=now_ms,
            hosts=hosts,
            lease_ms=lease_ms,
        )
        endpoints = Endpoints(store=store, signers=signers, sender=sending, by=SERVICE, now_ms=now_ms)
        yield Office(store, outbox, delivery, endpoints, now_ms)


@contextlib.asynccontextmanager
async def delivering(where: Office) -> AsyncIterator[None]:
    """Its delivery runs during the block."""
    async with asyncio.TaskGroup() as group:
        running = group.create_task(where.delivery.run())
        yield
        running.cancel()
