"""Who calls: customers and operators with HTTP Basic credentials, and the app ids that customers own."""

import asyncio
import base64
import binascii
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, select, update
from sqlalchemy.exc import SQLAlchemyError

from api import audit
from api.accounts import ID, unix_ms, valid_at
from api.audit import Action
from api.digests import MOST_SECRETS, Digests, Known, Role
from api.errors import Gate, GatewayError
from api.limits import Buckets
from api.lockout import Lockout, Scope
from api.masterkey import MasterKey
from api.store import Store
from api.tables import App, Secret
from recorder import metrics

log = logging.getLogger(__name__)

_TRY_AGAIN_SECONDS: Final = 5.0
_LOCKS_AT_ONCE: Final = 100  # rows of the audit log; many who guess from many addresses must not fill it:
_LOCKS_PER_SECOND: Final = 0.1

# Built once, and one statement: each call runs it.
_APP_OWNER = select(App.__table__.c.customer_id).where(App.id == bindparam("app_id"), App.removed_ms.is_(None)).scalar_subquery()
_KNOWN = (
    select(Secret.__table__.c.digest, Secret.__table__.c.key_id, _APP_OWNER.label("app_owner"))
    .where(Secret.role == bindparam("role"), Secret.owner_id == bindparam("owner_id"), valid_at(bindparam("now_ms")))
    .order_by(Secret.created_ms.desc())
    .limit(MOST_SECRETS)
)


@dataclass(frozen=True, slots=True)
class _Lock:
    """A lock that began."""

    role: Role
    owner_id: str  # "" unless there is such an account: who mistakes the fields sends a secret as an id
    address: str
    at_ms: int
    details: Mapping[str, object]


class Gatekeeper:
    def __init__(self, store: Store, key: MasterKey, *, lockout: Lockout | None = None, now_ms: Callable[[], int] = unix_ms) -> None:
        self._store = store
        self._key = key
        self._digests = Digests(key)
        self._lockout = lockout or Lockout()
        self._now_ms = now_ms
        self._again: dict[tuple[Role, str, bytes], Known] = {}  # digests of those who signed in, under the current master key
        self._locks: deque[_Lock] = deque()  # to be written down
        self._lock_rates = Buckets(per_second=_LOCKS_PER_SECOND, burst=_LOCKS_AT_ONCE)
        self._untold = 0  # locks that came too fast to be written down
        self._due = asyncio.Event()

    async def run(self) -> None:
        """Write down locks, and keep the digests of those who sign in under the current master key, until cancelled.

        No call waits for it.
        """
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                await self._write_locks()
                await self._digest_again()
            except (SQLAlchemyError, OSError):
                log.exception("locks could not be written down, or digests not be kept under the current master key")
                await asyncio.sleep(_TRY_AGAIN_SECONDS)
                self._due.set()

    async def _write_locks(self) -> None:
        if not self._locks:
            return
        begun = tuple(self._locks)
        async with self._store.write() as session:
            for lock in begun:
                by, action = audit.stranger(lock.address), Action(f"{lock.role}.locked")
                audit.add(session, by, action, lock.owner_id, at_ms=lock.at_ms, details=lock.details)
        for _ in begun:
            self._locks.popleft()

    async def _digest_again(self) -> None:
        due = dict(sorted(self._again.items()))  # in one order, else two control planes could wait for each other
        current = self._key.current.id
        async with self._store.write() as session:
            for (role, owner_id, digest), again in due.items():
                if again.key_id != current:  # there was another rotation since
                    continue
                kept = (Secret.role == role, Secret.owner_id == owner_id, Secret.digest == digest)
                await session.execute(update(Secret).where(*kept).values(digest=again.digest, key_id=again.key_id))
        for one in due:
            del self._again[one]

    async def customer(self, authorization: str | None, address: str, app_id: str | None = None) -> str:
        """The id of the customer who sent this Authorization header.

        Raises:
            GatewayError: nobody did, or too many wrong ones came before; or the app is not one of the customer's:
                somebody else's looks like one that does not exist.
        """
        customer_id, owner_id = await self._sign_in("customer", authorization, address, app_id)
        if app_id is not None and owner_id != customer_id:
            metrics.AUTHZ_DENIED.labels("app").inc()
            raise GatewayError(Gate.BAD_APP)
        return customer_id

    async def operator(self, authorization: str | None, address: str) -> str:
        """As `customer`, for operators: the one kind of credentials is of no use where the other is asked for."""
        operator_id, _ = await self._sign_in("operator", authorization, address)
        return operator_id

    async def _sign_in(self, role: Role, authorization: str | None, address: str, app_id: str | None = None) -> tuple[str, str | None]:
        """Who it is, and to which customer the app belongs: looked up together, and told only to those who may know."""
        if authorization is None:
            raise GatewayError(Gate.NO_CREDENTIALS)
        name, secret = _basic(authorization)
        name = name if ID.fullmatch(name) else ""  # it is kept: not what a stranger made as long as a header can be
        caller = f"{role}:{name}"
        self._check_lock(caller, address)
        asked_app = app_id if app_id is not None and ID.fullmatch(app_id) else ""
        given = {"role": role, "owner_id": name, "now_ms": self._now_ms(), "app_id": asked_app}
        known = await self._store.look(_KNOWN, given)
        fit = self._digests.fit(role, name, secret, [Known(row.digest, row.key_id) for row in known])
        self._check_lock(caller, address)  # others failed while this one waited
        if fit is None:
            seconds = self._lockout.failed(caller, address)
            if seconds:
                self._tell_lock(role, name if known else "", address, seconds)
            metrics.AUTHZ_DENIED.labels("login").inc()
            raise GatewayError(Gate.BAD_CREDENTIALS)
        self._lockout.succeeded(caller, address)
        if fit.again:
            self._again[role, name, known[fit.position].digest] = fit.again
            self._due.set()
        return name, known[0].app_owner

    def _tell_lock(self, role: Role, owner_id: str, address: str, seconds: Mapping[Scope, float]) -> None:
        """Once for each lock: the attempts that it turns away are counted by the metrics alone."""
        log.info("sign-in locked", extra={"role": role, "known": bool(owner_id), "locked_seconds": dict(seconds)})
        if len(self._locks) >= _LOCKS_AT_ONCE or not self._lock_rates.take(""):
            self._untold += 1
            return
        details: dict[str, object] = {"seconds": dict(seconds)}
        if self._untold:
            details["untold_before"], self._untold = self._untold, 0
        self._locks.append(_Lock(role, owner_id, address, self._now_ms(), details))
        self._due.set()

    def _check_lock(self, caller: str, address: str) -> None:
        seconds = self._lockout.locked_for(caller, address)
        if seconds > 0:
            metrics.AUTHZ_DENIED.labels("locked").inc()
            raise GatewayError(Gate.TOO_MANY, retry_seconds=seconds)


def _basic(authorization: str) -> tuple[str, str]:
    scheme, _, encoded = authorization.partition(" ")
    try:
        name, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        colon = name = secret = ""
    if scheme.lower() != "basic" or not colon:
        metrics.AUTHZ_DENIED.labels("login").inc()
        raise GatewayError(Gate.BAD_CREDENTIALS)
    return name, secret
