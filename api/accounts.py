"""Customers and operators with their secrets, and apps: what `cloud-recorder customers`, `operators` and `apps` change.

A running control plane looks each call's credentials up, so that a change holds from the next call on.
"""

import contextlib
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypedDict, Unpack

from sqlalchemy import BindParameter, ColumnElement, delete, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from api import audit
from api.audit import Action, Actor
from api.digests import MOST_SECRETS, Digests, Known, Role, new_secret
from api.masterkey import MasterKey, load_master_key
from api.store import Store, open_store
from api.tables import App, Customer, Operator, Recording, Secret
from api.vault import Safe
from recorder.settings import ConfigError, Settings

ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_NAME: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{0,64}")
_CERTIFICATE: Final = re.compile(r"[\x21-\x7e]{16,128}", re.ASCII)


class AccountError(Exception):
    """What was asked for cannot be done; the message says why and names no secret."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A new secret, on its way to the one who asked for it."""

    id: str  # of the customer or operator
    secret_id: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SecretView:
    id: str
    created_ms: int
    expires_ms: int | None


@dataclass(frozen=True, slots=True)
class AccountView:
    id: str
    name: str
    created_ms: int
    secrets: tuple[SecretView, ...]
    max_recordings: int | None = None
    max_streams: int | None = None
    max_pixels: int | None = None
    max_spool_bytes: int | None = None
    max_callbacks: int | None = None
    apps: tuple[str, ...] = ()


class Limits(TypedDict, total=False):
    """The quotas of a customer (`api.tables.Customer` says of what); None: no limit."""

    max_recordings: int | None
    max_streams: int | None
    max_pixels: int | None
    max_spool_bytes: int | None
    max_callbacks: int | None


LIMITS: Final = tuple(Limits.__annotations__)


@dataclass(frozen=True, slots=True)
class AppView:
    id: str
    customer_id: str
    name: str
    created_ms: int
    certificate: bool
    open_channels: bool
    max_recordings: int | None
    live_recordings: int


@dataclass(frozen=True, slots=True)
class AppChange:
    """What `set_app` is to change; None: nothing of that."""

    certificate: str | None = field(default=None, repr=False)  # its channels need access tokens made with it
    drop_certificate: bool = False
    open_channels: bool | None = None
    max_recordings: int | Literal["none"] | None = None  # "none": what the settings say

    def told(self) -> dict[str, object]:
        """What is changed, without the certificate."""
        fields: dict[str, object] = {"open_channels": self.open_channels, "max_recordings": self.max_recordings}
        if self.certificate is not None:
            fields["certificate"] = "set"
        elif self.drop_certificate:
            fields["certificate"] = "dropped"
        return {name: value for name, value in fields.items() if value is not None}


def unix_ms() -> int:
    return time.time_ns() // 1_000_000


class Accounts:
    def __init__(self, store: Store, key: MasterKey, *, by: Actor, now_ms: Callable[[], int] = unix_ms) -> None:
        """`by`: whose doing the audit log says it is."""
        self._store = store
        self._by = by
        self._digests = Digests(key)
        self._certificates = Certificates(key)
        self._now_ms = now_ms

    # ---- customers and operators ---------------------------------------------------------------------------------

    async def create(
        self,
        role: Role,
        *,
        name: str = "",
        max_recordings: int | None = None,
        owner_id: str | None = None,
        secret: str | None = None,
        app_id: str | None = None,
    ) -> Issued:
        """Add a customer or an operator with one secret, and `app_id` to a customer. `owner_id`, `secret`: generated unless given."""
        _check_name(name)
        owner_id = owner_id or secrets.token_hex(16)
        _check_id(role, owner_id)
        async with self._store.write() as session:
            if await _owner(session, role, owner_id):
                raise AccountError(f"there is a {role} {owner_id} already")
            if role == "customer":
                session.add(Customer(id=owner_id, name=name, max_recordings=max_recordings, created_ms=self._now_ms()))
                await session.flush()
                if app_id is not None:
                    session.add(App(id=app_id, customer_id=owner_id, name=name, created_ms=self._now_ms()))
            else:
                session.add(Operator(id=owner_id, name=name, created_ms=self._now_ms()))
            issued = self._issue(session, role, owner_id, secret or new_secret())
            self._note(session, Action(f"{role}.create"), owner_id, {"secret": issued.secret_id} | ({"app": app_id} if app_id else {}))
            return issued

    async def any(self, role: Role) -> bool:
        async with self._store.read() as session:
            return await session.scalar(select((Customer if role == "customer" else Operator).id).limit(1)) is not None

    async def list_all(self, role: Role) -> list[AccountView]:
        async with self._store.read() as session:
            owners: Sequence[Customer | Operator]
            if role == "customer":
                owners = (await session.scalars(select(Customer).order_by(Customer.created_ms, Customer.id))).all()
            else:
                owners = (await session.scalars(select(Operator).order_by(Operator.created_ms, Operator.id))).all()
            kept = (await session.scalars(select(Secret).where(Secret.role == role, self._valid()).order_by(Secret.created_ms))).all()
            apps = (await session.scalars(select(App).where(App.removed_ms.is_(None)).order_by(App.created_ms))).all()
        return [
            AccountView(
                id=owner.id,
                name=owner.name,
                created_ms=owner.created_ms,
                secrets=tuple(SecretView(one.id, one.created_ms, one.expires_ms) for one in kept if one.owner_id == owner.id),
                **({name: getattr(owner, name) for name in LIMITS} if isinstance(owner, Customer) else {}),
                apps=tuple(app.id for app in apps if role == "customer" and app.customer_id == owner.id),
            )
            for owner in owners
        ]

    async def rotate(self, role: Role, owner_id: str, *, old_end_in_ms: int | None = None) -> Issued:
        """Add a secret. Those there are stay valid, for `old_end_in_ms` at most unless that is None."""
        async with self._store.write() as session:
            await _need_owner(session, role, owner_id)
            old = (await session.scalars(select(Secret).where(Secret.role == role, Secret.owner_id == owner_id, self._valid()))).all()
            if len(old) >= MOST_SECRETS:
                raise AccountError(f"{role} {owner_id} has {MOST_SECRETS} secrets, which is the most: revoke one of them first")
            if old_end_in_ms is not None:
                end_ms = self._now_ms() + old_end_in_ms
                for secret in old:
                    secret.expires_ms = min(secret.expires_ms or end_ms, end_ms)
            issued = self._issue(session, role, owner_id, new_secret())
            self._note(session, Action(f"{role}.rotate"), owner_id, {"secret": issued.secret_id, "old_end_in_ms": old_end_in_ms})
            return issued

    async def revoke(self, role: Role, owner_id: str, secret_id: str | None) -> int:
        """Take one secret away, or (None) all of them; returns how many are left."""
        async with self._store.write() as session:
            await _need_owner(session, role, owner_id)
            ending = delete(Secret).where(Secret.role == role, Secret.owner_id == owner_id)
            if secret_id is not None:
                ending = ending.where(Secret.id == secret_id)
            ended = (await session.scalars(ending.returning(Secret.id))).all()
            if not ended and secret_id is not None:
                raise AccountError(f"{role} {owner_id} has no secret {secret_id!r}")
            self._note(session, Action(f"{role}.revoke"), owner_id, {"secrets": sorted(ended)})
            return (
                await session.scalar(
                    select(func.count()).select_from(Secret).where(Secret.role == role, Secret.owner_id == owner_id, self._valid())
                )
                or 0
            )

    async def digest_again(self, role: Role, owner_id: str, secret: str) -> bool:
        """Keep the digest of a secret under the current master key; False: it is so already, or it is no valid secret."""
        valid = select(Secret).where(Secret.role == role, Secret.owner_id == owner_id, self._valid())
        async with self._store.write() as session:
            rows = (await session.scalars(valid.with_for_update())).all()
            fit = self._digests.fit(role, owner_id, secret, [Known(row.digest, row.key_id) for row in rows])
            if fit is None or fit.again is None:
                return False
            rows[fit.position].digest, rows[fit.position].key_id = fit.again.digest, fit.again.key_id
        return True

    async def set_customer(self, customer_id: str, **limits: Unpack[Limits]) -> None:
        """Change the quotas that are given."""
        async with self._store.write() as session:
            customer = await session.get(Customer, customer_id)
            if customer is None:
                raise AccountError(f"there is no customer {customer_id!r}")
            for name, most in limits.items():
                setattr(customer, name, most)
            self._note(session, Action.CUSTOMER_SET, customer_id, limits)

    # ---- apps ----------------------------------------------------------------------------------------------------

    async def create_app(self, customer_id: str, *, app_id: str | None = None, name: str = "") -> str:
        """Add an app. `app_id`: one that clients use already, or that was removed; generated otherwise."""
        _check_name(name)
        app_id = app_id or secrets.token_hex(16)
        _check_id("app", app_id)
        async with self._store.write() as session:
            await _need_owner(session, "customer", customer_id)
            former = await session.get(App, app_id)
            if former and (former.removed_ms is None or former.customer_id != customer_id):
                raise AccountError(f"the app id {app_id} is taken")
            if former:
                former.removed_ms, former.name = None, name
            else:
                session.add(App(id=app_id, customer_id=customer_id, name=name, created_ms=self._now_ms()))
            self._note(session, Action.APP_CREATE, app_id, {"customer": customer_id})
        return app_id

    async def list_apps(self, customer_id: str | None = None) -> list[AppView]:
        wanted = select(App).where(App.removed_ms.is_(None)).order_by(App.created_ms)
        if customer_id is not None:
            wanted = wanted.where(App.customer_id == customer_id)
        async with self._store.read() as session:
            if customer_id is not None:
                await _need_owner(session, "customer", customer_id)
            apps = (await session.scalars(wanted)).all()
            counts = await session.execute(select(Recording.app_id, func.count()).where(Recording.live).group_by(Recording.app_id))
            live = {row.app_id: row[1] for row in counts}
        return [
            AppView(
                id=app.id,
                customer_id=app.customer_id,
                name=app.name,
                created_ms=app.created_ms,
                certificate=app.sealed_certificate is not None,
                open_channels=app.open_channels,
                max_recordings=app.max_recordings,
                live_recordings=live.get(app.id, 0),
            )
            for app in apps
        ]

    async def set_app(self, app_id: str, change: AppChange) -> None:
        """Change what is given, all of it or nothing."""
        if change.certificate is not None and not _CERTIFICATE.fullmatch(change.certificate):
            raise AccountError("a certificate has 16 to 128 printable ASCII characters without spaces")
        async with self._store.write() as session:
            app = await need_app(session, app_id)
            if change.drop_certificate:
                app.sealed_certificate = None
            if change.certificate is not None:
                app.sealed_certificate = self._certificates.seal(app_id, change.certificate)
            if change.open_channels is not None:
                app.open_channels = change.open_channels
            if change.max_recordings is not None:
                app.max_recordings = None if change.max_recordings == "none" else change.max_recordings
            self._note(session, Action.APP_SET, app_id, change.told())

    async def remove_app(self, app_id: str) -> None:
        """Take the app away. What it recorded stays; while it records, nobody could end that any more, so it is refused."""
        async with self._store.write() as session:
            app = await need_app(session, app_id)
            live = await session.scalar(select(func.count()).select_from(Recording).where(Recording.app_id == app_id, Recording.live))
            if live:
                raise AccountError(f"app {app_id} has {live} live recordings: stop them first")
            app.removed_ms = self._now_ms()
            app.sealed_certificate = None
            app.open_channels = False
            self._note(session, Action.APP_REMOVE, app_id)

    def _issue(self, session: AsyncSession, role: Role, owner_id: str, secret: str) -> Issued:
        secret_id = secrets.token_hex(4)
        made = self._digests.of(role, owner_id, secret)
        session.add(Secret(id=secret_id, role=role, owner_id=owner_id, digest=made.digest, key_id=made.key_id, created_ms=self._now_ms()))
        return Issued(owner_id, secret_id, secret)

    def _note(self, session: AsyncSession, action: Action, target: str, details: Mapping[str, object] | None = None) -> None:
        audit.add(session, self._by, action, target, at_ms=self._now_ms(), details=details)

    def _valid(self) -> ColumnElement[bool]:
        return valid_at(self._now_ms())


@contextlib.asynccontextmanager
async def open_accounts(settings: Settings, by: Actor) -> AsyncIterator[Accounts]:
    """The accounts of the deployment; raises as `open_deployment`."""
    async with open_deployment(settings) as (store, key):
        yield Accounts(store, key, by=by)


@contextlib.asynccontextmanager
async def open_deployment(settings: Settings) -> AsyncIterator[tuple[Store, MasterKey]]:
    """Database and key of the deployment that these settings are of, beside a control plane that may be running.

    Raises:
        ConfigError: there is no such deployment, it is somebody else's, or its database cannot be opened.
    """
    path = settings.key_file
    if not path.exists():
        raise ConfigError(
            f"no deployment here: {path} is missing; start the service once, or name its settings (--config, CLOUD_RECORDER_*)"
        )
    owner = path.stat().st_uid
    if owner != os.geteuid():  # root would leave files that the service cannot write
        raise ConfigError(f"{path} belongs to the user with id {owner}: run this as that user")
    async with open_store(settings.database_url) as store:
        yield store, load_master_key(path)


class Certificates:
    """Apps' certificates at rest."""

    def __init__(self, key: MasterKey) -> None:
        self.safe = Safe(key, "app certificate")

    def seal(self, app_id: str, certificate: str) -> bytes:
        return self.safe.seal(certificate.encode(), app_id)

    def open(self, app: App) -> str | None:
        """Raises:
        cryptography.exceptions.InvalidTag: it was sealed with another master key.
        """
        return self.safe.open(app.sealed_certificate, app.id).decode() if app.sealed_certificate else None


async def forget_expired(store: Store, now_ms: int) -> None:
    """Secrets whose time is over do not come back, even when somebody sets the clock back."""
    async with store.read() as session:
        if await session.scalar(select(Secret.id).where(~valid_at(now_ms)).limit(1)) is None:
            return
    async with store.write() as session:
        await session.execute(delete(Secret).where(~valid_at(now_ms)))


def valid_at(now_ms: int | BindParameter[int]) -> ColumnElement[bool]:
    """Of secrets."""
    return or_(Secret.expires_ms.is_(None), Secret.expires_ms > now_ms)


async def _owner(session: AsyncSession, role: Role, owner_id: str) -> Customer | Operator | None:
    table = Customer if role == "customer" else Operator
    return await session.get(table, owner_id)


async def _need_owner(session: AsyncSession, role: Role, owner_id: str) -> None:
    if await _owner(session, role, owner_id) is None:
        raise AccountError(f"there is no {role} {owner_id!r}")


async def need_app(session: AsyncSession, app_id: str) -> App:
    """The app, locked; raises AccountError when there is none."""
    app = await session.get(App, app_id, with_for_update=True)
    if app is None or app.removed_ms is not None:
        raise AccountError(f"there is no app {app_id!r}")
    return app


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise AccountError("a name has at most 64 characters, none of them a control character")


def _check_id(what: str, text: str) -> None:
    if not ID.fullmatch(text):
        raise AccountError(f"the id of the {what} must have 1 to 64 letters, digits, - or _")
