"""Replaces the master key: seals again what the database holds, and drops old keys when nothing needs them any more.

A control plane may be running beside it. It takes a changed file up at its next use of a key.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute

from api import audit
from api.accounts import AccountError, Accounts, Certificates, open_deployment, unix_ms, valid_at
from api.audit import Action, Actor
from api.endpoints import Signers
from api.first_credentials import still_kept
from api.masterkey import Content, Key, MasterKey, change, former_line, new_key, read
from api.service import START_WITHIN_MS
from api.signer import public_key
from api.store import Store
from api.tables import App, Endpoint, Recording, Secret
from api.vault import Safe, Vault
from recorder.settings import Settings

_BATCH: Final = 100  # rows in one transaction
_PASSES: Final = 20
_PASS_SECONDS: Final = 0.25  # between them, for those who hold what was passed over
_LAST_START_SECONDS: Final = 60.0  # for one that comes at the last moment to be written down
_NAMED: Final = 3  # of many, in a message


@dataclass(frozen=True, slots=True)
class Place:
    """A column that holds sealed bytes, and what they are bound to."""

    one: str
    many: str
    id: InstrumentedAttribute[str]
    sealed: InstrumentedAttribute[Any]
    context: ColumnElement[str] | InstrumentedAttribute[str]
    safe: Safe


@dataclass(frozen=True, slots=True)
class Done:
    """What a round through the database has changed, and what it could not."""

    current: str  # id of the key that everything is under now
    sealed: dict[str, int]  # how many were sealed again
    digests: int  # made again, of secrets in the files of the first start
    left: tuple[str, ...]  # what keeps older keys needed
    log_cleared: bool  # False: SQLite's write-ahead log is in use and may hold what was sealed with older keys


class Rotation:
    def __init__(self, *, settings: Settings, store: Store, key: MasterKey, by: Actor, now_ms: Callable[[], int] = unix_ms) -> None:
        """`by`: whose doing the audit log says it is."""
        self._settings = settings
        self._path = settings.key_file
        self._store = store
        self._key = key
        self._by = by
        self._accounts = Accounts(store, key, by=by, now_ms=now_ms)
        self._now_ms = now_ms
        signers = Signers(key).safe
        self._places = (  # bound as Vault, Certificates and Signers do it
            Place(
                "specification of a recording",
                "specifications of recordings",
                Recording.sid,
                Recording.sealed_spec,
                Recording.app_id + "/" + Recording.sid,
                Vault(key).safe,
            ),
            Place("certificate of an app", "certificates of apps", App.id, App.sealed_certificate, App.id, Certificates(key).safe),
            Place("secret of callbacks", "secrets of callbacks", Endpoint.app_id, Endpoint.sealed_secret, Endpoint.app_id, signers),
            Place(
                "former secret of callbacks",
                "former secrets of callbacks",
                Endpoint.app_id,
                Endpoint.sealed_old_secret,
                Endpoint.app_id,
                signers,
            ),
        )

    @property
    def keys(self) -> dict[str, str]:
        """By id, the current one first: the line that keeps what verifies its manifests when the key's own line goes."""
        return {key.id: former_line(public_key(key)) for key in self._key.all()}

    async def add(self) -> str:
        """Put a new key behind the others, where it opens and does not seal yet; returns its id."""
        added = self._add()
        await self._note(Action.KEYS_ADD, added)
        return added

    async def rotate(self, to: str | None = None) -> Done:
        """Make a new key current, or one that is in the file already, and seal everything with it.

        Raises:
            AccountError: there is no such key.
        """
        wanted = to or self._add()  # it is on the disk before anything is sealed with it

        def changed(content: Content) -> Content:
            first = next((one for one in content.secrets if Key(one).id == wanted), None)
            if first is None:
                raise AccountError(f"there is no key {wanted!r} in {self._path}")
            return Content((first, *(one for one in content.secrets if one != first)), content.former)

        change(self._path, changed)
        await self._note(Action.KEYS_ROTATE, wanted)
        return await self._seal_all()

    async def reseal(self) -> Done:
        """Bring everything under the current key; goes on where one that was interrupted ended."""
        done = await self._seal_all()
        await self._note(Action.KEYS_RESEAL, done.current, {"sealed": sum(done.sealed.values()), "digests": done.digests})
        return done

    def _add(self) -> str:
        secret = new_key()
        change(self._path, lambda content: Content((*content.secrets, secret), content.former))
        return Key(secret).id

    async def _seal_all(self) -> Done:
        sealed = {place.many: await self._reseal(place) for place in self._places}
        digests = [await self._accounts.digest_again(*kept) for kept in still_kept(self._settings)]
        left = tuple(await self.left())
        return Done(self._key.current.id, sealed, sum(digests), left, await self._store.scrub())

    async def drop(self) -> list[str]:
        """Take every key but the current one out of the file; returns their ids. What verifies their manifests stays in it.

        Raises:
            AccountError: something needs them; the message says what.
        """
        before = read(self._path)
        if len(before.secrets) == 1:
            return []
        done = await self._seal_all()
        left = list(done.left)
        if any(done.sealed.values()):
            left.insert(0, "something was still sealed with one until now: see that every control plane has this file, and try again later")
        if left:
            raise AccountError(f"older keys are still needed: {'; '.join(left)}")

        def changed(content: Content) -> Content:
            if content != before:
                raise AccountError(f"{self._path} was changed meanwhile: nothing is dropped")
            former = [*(public_key(key) for key in content.keys[1:]), *content.former]
            return Content(content.secrets[:1], tuple(dict.fromkeys(former)))

        change(self._path, changed)
        dropped = [key.id for key in before.keys[1:]]
        await self._note(Action.KEYS_DROP, done.current, {"dropped": dropped})
        return dropped

    async def left(self) -> list[str]:
        """What needs other keys than the current one, counted and named."""
        current = self._key.current.id
        unstarted = self._unstarted()  # before the look at those that were
        left: list[str] = []
        for place in self._places:
            older, unreadable = await self._look(place)
            left += _counted(older, place.one, place.many, "under an older key")
            left += _counted(unreadable, place.one, place.many, "that no key in the file opens")
        async with self._store.read() as session:
            secrets = select(Secret.role, Secret.owner_id, Secret.id).where(
                valid_at(self._now_ms()), or_(Secret.key_id.is_(None), Secret.key_id != current)
            )
            rows = (await session.execute(secrets.order_by(Secret.role, Secret.owner_id, Secret.created_ms))).all()
            sids = await session.scalars(
                select(Recording.sid)
                .where(
                    ~Recording.finished,
                    Recording.control_until_ms > self._now_ms(),
                    or_(Recording.resource_key_id.is_(None), Recording.resource_key_id != current),
                )
                .order_by(Recording.sid)
            )
            recordings = sids.all()
        for role in ("customer", "operator"):
            theirs = [f"{row.id} of {row.owner_id}" for row in rows if row.role == role]
            left += _counted(theirs, f"secret of {role}s", f"secrets of {role}s", "not used since the rotation")
        left += _counted(recordings, "recording", "recordings", "whose resourceId was acquired before the rotation")
        return left + unstarted

    async def _note(self, action: Action, key_id: str, details: Mapping[str, object] | None = None) -> None:
        """Of a change of the file, when that is done."""
        async with self._store.write() as session:
            audit.add(session, self._by, action, key_id, at_ms=self._now_ms(), details=details)

    def _unstarted(self) -> list[str]:
        """Only their callers have them, so what counts is when the file was changed."""
        if len(self._key.all()) == 1:
            return []
        seconds = self._path.stat().st_mtime + START_WITHIN_MS / 1000 + _LAST_START_SECONDS - time.time()
        return [f"resourceIds acquired before the file was changed may be started for another {seconds:.0f} s"] if seconds > 0 else []

    async def _reseal(self, place: Place) -> int:
        """How many were sealed again. Rows that somebody has locked come later, so that nobody waits for each other."""
        count = 0
        for number in range(_PASSES):
            older, _ = await self._look(place)
            if not older:
                break
            if number:
                await asyncio.sleep(_PASS_SECONDS)
            for start in range(0, len(older), _BATCH):
                count += await self._seal_again(place, older[start : start + _BATCH])
        return count

    async def _seal_again(self, place: Place, ids: Sequence[str]) -> int:
        count = 0
        wanted = select(place.id, place.sealed, place.context).where(place.id.in_(ids), place.sealed.is_not(None))
        async with self._store.write() as session:
            for row_id, sealed, context in (await session.execute(wanted.with_for_update(skip_locked=True))).all():
                with contextlib.suppress(InvalidTag):  # changed since the look: the next one tells
                    again = place.safe.reseal(sealed, context)
                    if again is not None:
                        changed = update(place.id.class_).where(place.id == row_id).values({place.sealed: again})
                        await session.execute(changed.execution_options(synchronize_session=False))
                        count += 1
        return count

    async def _look(self, place: Place) -> tuple[list[str], list[str]]:
        """Ids of rows under an older key, and of those that no key opens."""
        older: list[str] = []
        unreadable: list[str] = []
        last = ""
        while True:
            page = (
                select(place.id, place.sealed, place.context)
                .where(place.sealed.is_not(None), place.id > last)
                .order_by(place.id)
                .limit(_BATCH)
            )
            async with self._store.read() as session:
                rows = (await session.execute(page)).all()
            for row_id, sealed, context in rows:
                try:
                    if not place.safe.is_current(sealed, context):
                        older.append(row_id)
                except InvalidTag:
                    unreadable.append(row_id)
            if len(rows) < _BATCH:
                return older, unreadable
            last = rows[-1][0]


@contextlib.asynccontextmanager
async def open_rotation(settings: Settings, by: Actor) -> AsyncIterator[Rotation]:
    """The keys of the deployment, beside a control plane that may be running; raises as `open_deployment`."""
    async with open_deployment(settings) as (store, key):
        yield Rotation(settings=settings, store=store, key=key, by=by)


def _counted(ids: Sequence[str], one: str, many: str, why: str) -> list[str]:
    if not ids:
        return []
    named = ", ".join(ids[:_NAMED]) + (", …" if len(ids) > _NAMED else "")
    return [f"{len(ids)} {one if len(ids) == 1 else many} {why} ({named})"]
