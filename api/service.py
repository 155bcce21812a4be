"""The calls of the public API without their HTTP: acquire, start, query, update, updateLayout, stop."""

import asyncio
import hashlib
import json
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from sqlalchemy import bindparam, delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from api import audit, lifecycle
from api.audit import Action, Actor
from api.bus import Bus, BusError, Command, NoAnswer
from api.changes import Changes
from api.errors import Fault, ServiceError
from api.lifecycle import Status
from api.listing import files_of
from api.notices import Notices
from api.quotas import Needs, Quotas
from api.resource import OpenedId, Resource, ResourceIdError, ResourceIds
from api.stops import Stops
from api.store import Store
from api.tables import App, File, Recording, Slice
from api.vault import Vault
from recorder import metrics
from recorder.protocol import Done, Load, RenewStorage, SetLayout, Subscribe
from recorder.spec import Layout, Mode, RecordingSpec, Storage, Subscription

log = logging.getLogger(__name__)

TOLD_DAYS: Final = 7  # how long an ended recording can be asked about
START_WITHIN_MS: Final = 5 * 60_000  # of acquire
_SKEW_MS: Final = 60_000  # between the clocks of control planes; what is from a later time was acquired before the clock was set back
_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
_BY_SID: Final = select(Recording).where(Recording.sid == bindparam("of"))  # built once: each call runs it
_COMMITTED: Final = select(Slice.name).where(Slice.sid == bindparam("of")).limit(1)
_SID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated customer and one of its app ids."""

    customer_id: str
    app_id: str
    address: str = ""

    @property
    def actor(self) -> Actor:
        return audit.customer(self.customer_id, self.address)


@dataclass(frozen=True, slots=True)
class Target:
    """The recording that a call names. `channel` and `uid` are None where the call has no body."""

    caller: Caller
    resource_id: str
    sid: str
    mode: Mode
    channel: str | None = None
    uid: str | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A recording as its owner sees it at one moment."""

    recording: Recording
    files: Sequence[File]  # where its list names them one by one


@dataclass(frozen=True, slots=True)
class Patience:
    """How long callers are kept waiting."""

    start_seconds: float = 3.0  # for the outcome of a start that another call made
    stop_seconds: float = 20.0  # for the upload


class Service:
    def __init__(
        self,
        *,
        store: Store,
        bus: Bus,
        stops: Stops,
        vault: Vault,
        resources: ResourceIds,
        quotas: Quotas,
        changes: Changes,
        notices: Notices,
        now_ms: Callable[[], int],
        patience: Patience | None = None,
        start_problem: Callable[[RecordingSpec], Awaitable[str | None]] | None = None,
        encrypt_media: bool = False,
    ) -> None:
        """`start_problem` tries the bucket before a recording is started and says why it cannot be used."""
        self._store = store
        self._bus = bus
        self._stops = stops
        self._vault = vault
        self._resources = resources
        self._quotas = quotas
        self._changes = changes
        self._notices = notices
        self._now_ms = now_ms
        self._patience = patience or Patience()
        self._start_problem = start_problem
        self._encrypt_media = encrypt_media
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def acquire(self, caller: Caller, *, channel: str, uid: str, scene: int, expires_hours: int, parameters: object) -> str:
        """A resourceId for one start within five minutes. `parameters`: what the start must then be given, None: anything."""
        await self._quotas.look(caller.app_id)
        resource = Resource(
            customer_id=caller.customer_id,
            app_id=caller.app_id,
            channel=channel,
            uid=uid,
            scene=scene,
            expires_hours=expires_hours,
            parameter_digest=None if parameters is None else _digest(parameters),
            issued_ms=self._now_ms(),
        )
        return self._resources.seal(resource)

    async def start(self, caller: Caller, resource_id: str, spec: RecordingSpec, parameters: object) -> None:
        """Have `spec` recorded. `parameters` are those it was made from."""
        try:
            opened = self._resources.open(resource_id)
        except ResourceIdError as error:
            metrics.AUTHZ_DENIED.labels("recording").inc()
            raise ServiceError(Fault.UNREADABLE_RESOURCE) from error
        resource = opened.resource
        if resource.customer_id != caller.customer_id:
            metrics.AUTHZ_DENIED.labels("recording").inc()
            raise ServiceError(Fault.UNREADABLE_RESOURCE)
        if (resource.app_id, resource.channel, resource.uid) != (caller.app_id, spec.channel, str(spec.uid)):
            raise ServiceError(Fault.WRONG_IDENTITY)
        async with self._turns.setdefault(opened.key, asyncio.Lock()):  # else each of many repeats would take its turn to write
            first = await self._started_with(opened.key) or await self._insert(spec, opened, parameters)
        if first:
            raise await self._repeated(first.sid)
        await self._offer(spec.sid, Load.of(spec))
        metrics.RECORDINGS_STARTED.labels(spec.mode).inc()

    async def _insert(self, spec: RecordingSpec, opened: OpenedId, parameters: object) -> Recording | None:
        """Write the recording down; None, or the recording that another control plane wrote for this resourceId."""
        resource = opened.resource
        if not -_SKEW_MS <= self._now_ms() - resource.issued_ms <= START_WITHIN_MS:
            raise ServiceError(Fault.RESOURCE_EXPIRED)
        if resource.parameter_digest not in (None, _digest(parameters)):
            raise ServiceError(Fault.INVALID_PARAMETER, "clientRequest: differs from the startParameter of acquire")
        problem = await self._start_problem(spec) if self._start_problem else None
        if problem:
            raise ServiceError(Fault.INVALID_PARAMETER, f"clientRequest.storageConfig: {problem}")
        needs = Needs.of(spec)
        try:
            async with self._store.write() as session:
                await self._quotas.admit(session, spec.app_id, needs)
                session.add(self._new_row(spec, opened, needs))
        except IntegrityError as error:
            first = await self._started_with(opened.key)
            if first is None:
                await self._tell_conflict(spec)
                raise ServiceError(Fault.TASK_CONFLICT) from error
            return first
        return None

    async def query(self, target: Target) -> Snapshot:
        async with self._store.read() as session:
            return await _snapshot(session, await self._find(target, session))

    async def tell(self, customer_id: str, sid: str) -> Snapshot:
        """A recording of the customer's, from its start until some days after its end."""
        row = await self._owned(customer_id, sid)
        if row is None or (row.finished_ms and self._now_ms() >= row.finished_ms + TOLD_DAYS * _DAY_MS):
            raise ServiceError(Fault.NO_SUCH_TASK)
        return await self._snapshot(row)

    async def change_storage(self, caller: Caller, sid: str, wanted: Storage, *, moved: Callable[[Storage], Sequence[str]]) -> None:
        """Other keys for the bucket of a recording that runs or has ended; `moved` names what of `wanted` is another place.

        Another place is taken while nothing is stored.
        """
        if await self._owned(caller.customer_id, sid) is None:
            raise ServiceError(Fault.NO_SUCH_TASK)
        fields: Sequence[str] = ()

        async def moves(session: AsyncSession, place: Storage) -> bool:
            nonlocal fields
            fields = moved(place)
            if fields and await _has_stored(session, sid):
                raise _stored_there(fields)
            return bool(fields)

        try:
            await self._renew(sid, wanted, moves, caller.actor)
        except ServiceError as error:
            if error.fault is Fault.INVALID_PARAMETER and fields:  # the node has stored something that it has not told yet
                raise _stored_there(fields) from error
            raise

    async def _owned(self, customer_id: str, sid: str) -> Recording | None:
        if not _SID.fullmatch(sid):
            return None
        async with self._store.read() as session:
            of_anybody = select(Recording, App.customer_id).join(App, App.id == Recording.app_id).where(Recording.sid == sid)
            row, owner_id = (await session.execute(of_anybody)).one_or_none() or (None, None)
        if row is None or owner_id == customer_id:
            return row
        metrics.AUTHZ_DENIED.labels("recording").inc()
        return None

    async def stop(self, target: Target, *, wait: bool) -> Snapshot:
        """Stop the recording. `wait`: answer when everything that was recorded is stored."""
        row = await self._look_up(target)
        try:
            await self._stops.stop(row.sid)
        except ServiceError as error:
            if error.fault is Fault.EXITING:
                await self._tell_refusal(row)
            raise
        if not wait:
            return await self._snapshot(await self._get(row.sid) or row)
        last = await self._changes.until(row.sid, lambda: self._get(row.sid), _is_over, self._patience.stop_seconds)
        if last is None or not last.finished:
            raise ServiceError(Fault.UPLOAD_PENDING)
        if not await self._store.look(_COMMITTED, {"of": row.sid}):
            raise ServiceError(Fault.NO_DATA)
        if last.uploading == "unknown":  # refused by the bucket, or lost: a success would be taken for a recording that is there
            raise ServiceError(Fault.UPLOAD_PENDING)
        return await self._snapshot(last)

    async def update(
        self,
        target: Target,
        *,
        subscription: Subscription | None,
        storage: Storage | None,
        problem: Callable[[bool, bool, Storage], str | None],
    ) -> None:
        """Replace whose media is recorded, the keys of the bucket, or both.

        `problem(audio, video, storage)` says why that does not suit what is recorded, and where it is stored.
        """
        row = await self._look_up(target)
        if row.sealed_spec is None:  # it has ended this very moment
            raise ServiceError(Fault.NO_SUCH_TASK)
        spec = self._vault.open(row.sealed_spec, app_id=row.app_id, sid=row.sid)
        assert spec.storage
        reason = problem(row.audio, row.video, spec.storage)
        if reason:
            raise ServiceError(Fault.INVALID_PARAMETER, reason)
        if subscription:
            await self._quotas.widen(row, spec.model_copy(update={"subscription": subscription}).most_streams)
        if storage:

            async def moves(_session: AsyncSession, place: Storage) -> bool:  # it may be another one by now
                reason = problem(row.audio, row.video, place)
                if reason:
                    raise ServiceError(Fault.INVALID_PARAMETER, reason)
                return False

            await self._renew(row.sid, storage, moves, target.caller.actor)
        if subscription:
            await self._change(row, Subscribe(sid=row.sid, subscription=subscription), {"subscription": subscription})

    async def set_layout(self, target: Target, layout: Layout) -> None:
        """Replace the whole layout."""
        row = await self._look_up(target)
        await self._change(row, SetLayout(sid=row.sid, layout=layout), {"layout": layout})

    def _new_row(self, spec: RecordingSpec, opened: OpenedId, needs: Needs) -> Recording:
        assert spec.storage
        now_ms = self._now_ms()
        string_list = spec.mode == "mix" and not spec.mp4
        return Recording(
            sid=spec.sid,
            app_id=spec.app_id,
            channel=spec.channel,
            uid=spec.uid,
            mode=spec.mode,
            resource_key=opened.key,
            resource_key_id=opened.master_key_id,
            created_ms=now_ms,
            control_until_ms=now_ms + opened.resource.expires_hours * _HOUR_MS,
            listing="none" if spec.snapshots else "string" if string_list else "json",
            prefix=spec.storage.folder,
            audio=spec.audio,
            video=spec.video,
            files=spec.files,
            streams=needs.streams,
            pixels=needs.pixels,
            sealed_spec=self._vault.seal(spec.with_media_key() if self._encrypt_media else spec),
        )

    async def _offer(self, sid: str, load: Load) -> None:
        try:
            taken = await self._bus.offer(sid, load)
        except NoAnswer as error:
            raise ServiceError(Fault.NOT_COMPLETED) from error
        async with self._store.write() as session:
            if not taken:
                # The same resourceId may be started again, so nothing stays behind. Who claimed it meanwhile, keeps it.
                gone = await session.execute(delete(Recording).where(Recording.sid == sid, Recording.epoch == 0).returning(Recording.sid))
                taken = gone.first() is None
            if taken:
                row = await session.get(Recording, sid, with_for_update=True)
                assert row
                lifecycle.accept(row)
        self._changes.tell(sid)
        if not taken:
            raise ServiceError(Fault.NO_CAPACITY)
        log.info("recording started", extra={"sid": sid})

    async def _repeated(self, sid: str) -> ServiceError:
        """The answer to a start whose resourceId was used before; the first start may still be under way."""
        row = await self._changes.until(
            sid, lambda: self._get(sid), lambda row: row is None or row.status > Status.NOTHING, self._patience.start_seconds
        )
        if row is None:
            return ServiceError(Fault.NO_CAPACITY)
        if row.finished:
            return ServiceError(Fault.RESOURCE_EXPIRED, "resourceId was used for a recording that has ended")
        if row.status == Status.NOTHING:
            return ServiceError(Fault.NOT_COMPLETED)
        await self._tell_refusal(row)
        return ServiceError(Fault.ALREADY_STARTED, sid=row.sid)

    async def _tell_conflict(self, spec: RecordingSpec) -> None:
        """A start meets a recording of the same channel by the same uid."""
        same = (Recording.app_id == spec.app_id, Recording.channel == spec.channel, Recording.uid == spec.uid, Recording.live)
        async with self._store.read() as session:
            live = await session.scalar(select(Recording).where(*same))
        if live:
            await self._tell_refusal(live)

    async def _tell_refusal(self, row: Recording) -> None:
        """Have its customer notified that a call did not fit the state of this recording."""
        async with self._store.read() as session:  # most want no such notice: they need not take their turn to write
            if not await self._notices.wants_refusals(session, row.app_id):
                return
        async with self._store.write() as session:
            current = await session.get(Recording, row.sid, with_for_update=True)
            if current:
                await self._notices.tell_refusal(session, current)

    async def _look_up(self, target: Target) -> Recording:
        async with self._store.read() as session:
            return await self._find(target, session)

    async def _find(self, target: Target, session: AsyncSession) -> Recording:
        """The recording, when it is the caller's and can still be controlled; otherwise it looks like one that never was."""
        try:
            opened = self._resources.open(target.resource_id)
        except ResourceIdError as error:
            metrics.AUTHZ_DENIED.labels("recording").inc()
            raise ServiceError(Fault.NO_SUCH_TASK) from error
        resource = opened.resource
        row = await session.scalar(_BY_SID, {"of": target.sid}) if _SID.fullmatch(target.sid) else None
        foreign = (resource.customer_id, resource.app_id) != (target.caller.customer_id, target.caller.app_id)
        if foreign or row is None or row.resource_key != opened.key:
            if foreign or (row is not None and row.app_id != target.caller.app_id):
                metrics.AUTHZ_DENIED.labels("recording").inc()
            raise ServiceError(Fault.NO_SUCH_TASK)
        if target.channel is not None and (target.channel, target.uid) != (resource.channel, resource.uid):
            raise ServiceError(Fault.WRONG_IDENTITY)
        if target.mode != row.mode:
            raise ServiceError(Fault.INVALID_PARAMETER, f"mode: the recording was started in mode {row.mode}")
        if row.finished or self._now_ms() >= row.control_until_ms:
            raise ServiceError(Fault.NO_SUCH_TASK)
        return row

    async def _change(self, row: Recording, command: Command, changed: dict[str, object]) -> None:
        """Tell the node, then keep the change for the worker that may have to take over. One change at a time."""
        try:
            async with self._turns.setdefault(row.sid, asyncio.Lock()):
                node = await self._owner(row.sid) or await self._keep(row.sid, changed, unless_claimed=True)
                if node:
                    await self._command(node, command)
                    await self._keep(row.sid, changed)
        except ServiceError as error:
            if error.fault is Fault.NO_SUCH_TASK:
                await self._tell_refusal(row)
            raise

    async def _renew(self, sid: str, storage: Storage, moves: Callable[[AsyncSession, Storage], Awaitable[bool]], by: Actor) -> None:
        """Keep the new keys, then have the node claim them: secrets travel in no command. Until the end, for uploads go on till then.

        `moves` tells whether `storage` is another place than the one there is, or raises. The node alone knows for certain what is
        stored, so another place is only proposed to it, and becomes the place as it claims that (`Claim.moves`).
        """
        async with self._turns.setdefault(sid, asyncio.Lock()):
            async with self._store.write() as session:
                row = await session.get(Recording, sid, with_for_update=True)
                if row is None or row.sealed_spec is None:
                    raise ServiceError(Fault.NO_SUCH_TASK)
                spec = self._vault.open(row.sealed_spec, app_id=row.app_id, sid=sid)
                assert spec.storage
                elsewhere = await moves(session, spec.storage)
                proposed = elsewhere and row.node is not None
                audit.add(session, by, Action.RECORDING_STORAGE, sid, at_ms=self._now_ms(), details={"another_place": elsewhere})
                changed: dict[str, Storage | None] = {"next_storage": storage}
                if not proposed:
                    changed = {"storage": storage, "next_storage": None}
                    row.prefix = storage.folder
                row.sealed_spec = self._vault.seal(spec.model_copy(update=changed))
                node = row.node
            if node:
                await self._command(node, RenewStorage(sid=sid, moves=proposed))

    async def _owner(self, sid: str) -> str | None:
        """The node to be told of a change; None: nobody has claimed the recording yet. Nothing waits here for its turn to write."""
        row = await self._get(sid)
        if row is None or row.status >= Status.STOPPING:
            raise ServiceError(Fault.NO_SUCH_TASK)
        return row.node

    async def _keep(self, sid: str, changed: dict[str, object], *, unless_claimed: bool = False) -> str | None:
        """Store the change in the spec; what nobody has claimed yet is claimed with it. Returns the owner."""
        async with self._store.write() as session:
            row = await session.get(Recording, sid, with_for_update=True)
            if row is None or row.status >= Status.STOPPING or row.sealed_spec is None:
                raise ServiceError(Fault.NO_SUCH_TASK)
            if not (row.node and unless_claimed):
                spec = self._vault.open(row.sealed_spec, app_id=row.app_id, sid=sid).model_copy(update=changed)
                row.sealed_spec = self._vault.seal(spec)
                if "subscription" in changed:
                    row.streams = spec.most_streams
            return row.node

    async def _command(self, node: str, command: Command) -> None:
        try:
            answer = await self._bus.command(node, command)
        except BusError as error:
            raise ServiceError(Fault.NOT_COMPLETED if isinstance(error, NoAnswer) else Fault.UNREACHABLE) from error
        if isinstance(answer, Done):
            return
        log.warning("command refused", extra={"sid": command.sid, "node": node, "command": command.type, "reason": answer.reason})
        match answer.reason:
            case "bad_request":
                raise ServiceError(Fault.INVALID_PARAMETER, answer.detail)
            case "stale":
                raise ServiceError(Fault.NOT_COMPLETED)
            case _:
                raise ServiceError(Fault.NO_SUCH_TASK)

    async def _get(self, sid: str) -> Recording | None:
        async with self._store.read() as session:
            return await session.scalar(_BY_SID, {"of": sid})

    async def _started_with(self, key: str) -> Recording | None:
        async with self._store.read() as session:
            return await session.scalar(select(Recording).where(Recording.resource_key == key))

    async def _snapshot(self, row: Recording) -> Snapshot:
        async with self._store.read() as session:
            return await _snapshot(session, row)


async def _has_stored(session: AsyncSession, sid: str) -> bool:
    there = select(Slice.name).where(Slice.sid == sid, Slice.stored == "customer").limit(1)
    return await session.scalar(there) is not None


def _stored_there(fields: Sequence[str]) -> ServiceError:
    problems = [f"storageConfig.{field}: cannot be changed, a part of the recording is stored there" for field in fields]
    return ServiceError(Fault.INVALID_PARAMETER, "; ".join(problems))


async def _snapshot(session: AsyncSession, row: Recording) -> Snapshot:
    return Snapshot(recording=row, files=await files_of(session, row) if row.listing == "json" else ())


def _is_over(row: Recording | None) -> bool:
    return row is None or row.finished


def _digest(parameters: object) -> str:
    """Equal for equal JSON, whatever the order of its keys."""
    try:
        text = json.dumps(parameters, sort_keys=True, separators=(",", ":"))
    except RecursionError as error:
        raise ServiceError(Fault.INVALID_PARAMETER, "clientRequest: is nested too deeply") from error
    return hashlib.sha256(text.encode()).hexdigest()[:32]
