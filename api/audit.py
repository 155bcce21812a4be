"""The audit log: who changed accounts, keys, receivers and stores, and which sign-ins were locked. No secret ever goes into it.

A change adds its row in its own transaction; one whose change is a file adds it afterwards.
"""

import contextlib
import hashlib
import os
import pwd
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from api.store import Store
from api.tables import Audit

_LONGEST_ACTOR: Final = 96
_LONGEST_ADDRESS: Final = 64
_NO_LOGIN: Final = 2**32 - 1  # how Linux writes that nobody has


class Action(StrEnum):
    CUSTOMER_CREATE = "customer.create"
    CUSTOMER_SET = "customer.set"
    CUSTOMER_ROTATE = "customer.rotate"
    CUSTOMER_REVOKE = "customer.revoke"
    CUSTOMER_LOCKED = "customer.locked"
    OPERATOR_CREATE = "operator.create"
    OPERATOR_ROTATE = "operator.rotate"
    OPERATOR_REVOKE = "operator.revoke"
    OPERATOR_LOCKED = "operator.locked"
    APP_CREATE = "app.create"
    APP_SET = "app.set"
    APP_REMOVE = "app.remove"
    CALLBACKS_SET = "callbacks.set"
    CALLBACKS_ROTATE = "callbacks.rotate"
    CALLBACKS_REMOVE = "callbacks.remove"
    CALLBACKS_REPLAY = "callbacks.replay"
    KEYS_ADD = "keys.add"
    KEYS_ROTATE = "keys.rotate"
    KEYS_RESEAL = "keys.reseal"
    KEYS_DROP = "keys.drop"
    RECORDING_STORAGE = "recording.storage"
    RECORDING_ERASE = "recording.erase"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something: a role, and which one of it."""

    name: str  # cli:<user of the operating system>, customer:<id>, operator:<id>, or one of those below
    address: str = ""  # of a caller of the API


SERVICE: Final = Actor("service")  # the service itself, at its first start


def command_line(login_uid: Path = Path("/proc/self/loginuid")) -> Actor:
    """Who has logged in and runs this process, which Linux knows through `sudo`, too; where that is not known, as whom it runs."""
    uid = os.geteuid()
    with contextlib.suppress(OSError, ValueError):
        known = int(login_uid.read_text("ascii"))
        uid = uid if known == _NO_LOGIN else known
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:  # as in a container
        name = str(uid)
    return Actor(f"cli:{name}")


def customer(customer_id: str, address: str) -> Actor:
    return Actor(f"customer:{customer_id}", address)


def stranger(address: str) -> Actor:
    """Somebody who could not sign in."""
    return Actor("unknown", address)


@dataclass(frozen=True, slots=True)
class Entry:
    at_ms: int
    actor: str
    address: str
    action: str
    target: str
    details: Mapping[str, object]


def add(session: AsyncSession, by: Actor, action: Action, target: str, *, at_ms: int, details: Mapping[str, object] | None = None) -> None:
    """Write it down with the transaction. `target`: the id of what is changed. `details`: JSON values, none of them a secret."""
    session.add(
        Audit(
            at_ms=at_ms,
            actor=by.name[:_LONGEST_ACTOR],
            address="".join(filter(str.isprintable, by.address))[:_LONGEST_ADDRESS],  # a proxy may pass on anything
            action=action.value,
            target=target,
            details=dict(details or {}),
        )
    )


def erased(sid: str) -> str:
    """What stands for the sid of an erased recording: who has the sid finds it, nobody else learns the sid from it."""
    return f"erased-{hashlib.sha256(sid.encode()).hexdigest()[:32]}"


async def recent(store: Store, *, limit: int, since_ms: int | None = None, action: Action | None = None) -> Sequence[Entry]:
    """At most so many, the newest first."""
    wanted = select(Audit).order_by(Audit.at_ms.desc(), Audit.id.desc()).limit(limit)
    if since_ms is not None:
        wanted = wanted.where(Audit.at_ms >= since_ms)
    if action is not None:
        wanted = wanted.where(Audit.action == action.value)
    async with store.read() as session:
        rows = (await session.scalars(wanted)).all()
    return [Entry(row.at_ms, row.actor, row.address, row.action, row.target, row.details) for row in rows]


async def forget(store: Store, before_ms: int) -> None:
    """Remove what is older."""
    async with store.read() as session:
        if await session.scalar(select(Audit.id).where(Audit.at_ms < before_ms).limit(1)) is None:
            return
    async with store.write() as session:
        await session.execute(delete(Audit).where(Audit.at_ms < before_ms))
