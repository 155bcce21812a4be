"""What nodes tell, turned into rows: who owns a recording, and what happened to it.

Each message is one transaction: a state change and the event that made it are committed together or not at all.
"""

import json
import logging
import secrets
from collections.abc import Callable
from typing import Final

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from api import lifecycle, usage
from api.changes import Changes
from api.events import recorder_uid
from api.lifecycle import Status
from api.notices import Notices
from api.store import Store
from api.tables import File, Recording, SeenEvent, Slice
from api.vault import Vault
from recorder import metrics, protocol
from recorder.protocol import AgentHello, Claim, Claimed, Done, Event, EventBody, Refused

log = logging.getLogger(__name__)

_UIDS: Final = 2**32 - 1  # from 1 on


class Ledger:
    def __init__(self, *, store: Store, vault: Vault, changes: Changes, notices: Notices, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._vault = vault
        self._changes = changes
        self._notices = notices
        self._now_ms = now_ms

    async def hello(self, hello: AgentHello) -> None:
        """A node has connected. What it should be working on and is not, is over: its spool is gone."""
        async with self._store.write() as session:
            missing = await session.scalars(
                select(Recording)
                .where(Recording.node == hello.node, ~Recording.finished, Recording.sid.not_in(hello.live))
                .with_for_update()
            )
            lost = missing.all()
            for row in lost:
                before, ended = row.status, row.ended_ms is not None
                lifecycle.finish(row, outcome="interrupted", reason="crashed", uploading="unknown", now_ms=self._now_ms())
                await self._notices.tell_lost(session, row, before=before, ended=ended)
            await session.execute(delete(SeenEvent).where(SeenEvent.sid.in_([row.sid for row in lost])))
        for row in lost:
            log.error("recording lost by its node", extra={"sid": row.sid, "node": hello.node})
            metrics.RECORDINGS_ENDED.labels("interrupted", "crashed").inc()
            self._changes.tell(row.sid)

    async def claim(self, claim: Claim) -> Claimed | Refused:
        """Give the recording to the node, with a new epoch; to its owner of this very epoch without one."""
        async with self._store.write() as session:
            row = await session.get(Recording, claim.sid, with_for_update=True)
            refused = _refuse_claim(row, claim)
            if refused:
                if refused.reason == "stale":
                    metrics.FENCED.labels("claim").inc()
                return refused
            assert row
            assert row.sealed_spec  # wiped only when finished
            spec = self._vault.open(row.sealed_spec, app_id=row.app_id, sid=row.sid)
            if claim.resume is None:
                row.node = claim.node
                row.epoch += 1
                lifecycle.accept(row)
                if row.epoch > 1:
                    if spec.token is None:  # else it lets in nobody but the first uid
                        row.worker_uid = 1 + secrets.randbelow(_UIDS)
                    await self._notices.tell_failover(session, row)
            if claim.moves and spec.next_storage:
                row.prefix = spec.next_storage.folder
                spec = spec.model_copy(update={"storage": spec.next_storage, "next_storage": None})
                row.sealed_spec = self._vault.seal(spec)
            spec = spec.model_copy(update={"uid": recorder_uid(row), "next_storage": None})
        self._changes.tell(row.sid)
        log.info("recording claimed", extra={"sid": row.sid, "node": claim.node, "epoch": row.epoch})
        return Claimed(sid=row.sid, epoch=row.epoch, spec=json.loads(spec.with_secrets()))

    async def owner(self, sid: str) -> str | None:
        """The node that has the recording; None when none has, or there is no such recording."""
        async with self._store.read() as session:
            row = await session.get(Recording, sid)
            return row.node if row else None

    async def record(self, event: Event) -> Done | Refused:
        """Apply the event once. Refused: it names something that cannot be; to send it again is no use."""
        async with self._store.write() as session:
            row = await session.get(Recording, event.sid, with_for_update=True)
            if row is None:
                return Refused(reason="unknown")
            if event.epoch > row.epoch:
                return Refused(reason="bad_request", detail="an epoch that was never given out")
            seen = await session.get(SeenEvent, (event.sid, event.epoch, event.sequence))
            if event.epoch < row.epoch:
                if not seen:
                    metrics.FENCED.labels("event").inc()
                return Done()
            if seen or lifecycle.is_too_late(row, event.body):
                return Done()
            session.add(SeenEvent(sid=event.sid, epoch=event.epoch, sequence=event.sequence))
            await session.flush()
            before, ended = row.status, row.ended_ms is not None
            problem = await self._apply(session, row, event)
            if problem:
                await session.rollback()
                log.error("event refused", extra={"sid": event.sid, "epoch": event.epoch, "sequence": event.sequence, "detail": problem})
                return Refused(reason="bad_request", detail=problem)
            await self._notices.tell(session, row, event, before=before, ended=ended)
        _count(event.body)
        self._changes.tell(event.sid)
        return Done()

    async def _apply(self, session: AsyncSession, row: Recording, event: Event) -> str | None:
        match event.body:
            case protocol.PhaseChanged(phase=phase):
                lifecycle.advance(row, phase)
            case protocol.FileOpened(file=file):
                await _open_file(session, row, file)
            case protocol.SliceCommitted(slice=slice_):
                return await _commit_slice(session, row, slice_)
            case protocol.SliceStored(name=name, backup=backup):
                stored = "backup" if backup else "customer"
                await session.execute(update(Slice).where(Slice.sid == row.sid, Slice.name == name).values(stored=stored))
            case protocol.Metered():
                return await usage.note(session, row, event.body)
            case protocol.BackupDone() if not row.finished:
                return "files are left behind by what has ended alone"
            case protocol.BackupDone(uploading=uploading, detail=detail):
                lifecycle.close(row, uploading)
                await session.execute(delete(SeenEvent).where(SeenEvent.sid == row.sid))
                log.info("no file waits any more", extra={"sid": row.sid, "uploading": uploading, "detail": detail})
            case protocol.Ended(outcome=outcome, reason=reason):
                lifecycle.end(row, outcome, reason, at_ms=event.at_ms)
            case protocol.WorkerLost(detail=detail):
                row.workers_lost += 1
                log.warning("worker lost", extra={"sid": row.sid, "detail": detail})
            case protocol.Finished(outcome=outcome, reason=reason, uploading=uploading, leaves_behind=behind):
                lifecycle.finish(row, outcome=outcome, reason=reason, uploading=uploading, now_ms=self._now_ms(), leaves_behind=behind)
                if not behind:
                    await session.execute(delete(SeenEvent).where(SeenEvent.sid == row.sid))
                log.info("recording finished", extra={"sid": row.sid, "outcome": outcome, "reason": reason, "uploading": uploading})
            case _:
                _log(row.sid, event.body)
        return None


def _log(sid: str, body: EventBody) -> None:
    """What changes no state."""
    match body:
        case protocol.Warned(module=module, code=code, detail=detail):
            log.warning("recording impaired", extra={"sid": sid, "fault_module": module, "code": code, "detail": detail})
        case protocol.Faulted(module=module, code=code, detail=detail):
            log.error("a recording reports an error", extra={"sid": sid, "fault_module": module, "code": code, "detail": detail})
        case protocol.ImageFailed(why=why, detail=detail):
            log.warning("image left out", extra={"sid": sid, "why": why, "detail": detail})
        case protocol.WorkerFenced(epoch=epoch):
            log.warning("a worker whose epoch is over was turned away", extra={"sid": sid, "epoch": epoch})
        case protocol.BackupStarted():
            log.warning("files go to the backup store", extra={"sid": sid})
        case protocol.BackupProgress(left=left):
            log.info("files come to the customer's store", extra={"sid": sid, "left": left})


def _count(body: EventBody) -> None:
    match body:
        case protocol.SliceCommitted(seconds=seconds):
            metrics.SLICES_COMMITTED.inc()
            if seconds is not None:
                metrics.COMMIT_SECONDS.observe(seconds)
        case protocol.SliceStored(backup=backup, seconds=seconds, retries=retries, mismatches=mismatches):
            metrics.SLICES_STORED.labels("backup" if backup else "customer").inc()
            metrics.UPLOAD_RETRIES.inc(retries)
            metrics.UPLOAD_MISMATCHES.inc(mismatches)
            if seconds is not None:
                metrics.UPLOAD_SECONDS.observe(seconds)
        case protocol.ImageFailed(why=why):
            metrics.IMAGES_FAILED.labels(why).inc()
        case protocol.Warned(code=code):
            metrics.IMPAIRED.labels(code).inc()
        case protocol.WorkerLost():
            metrics.WORKERS_LOST.inc()
        case protocol.WorkerFenced():
            metrics.FENCED.labels("worker").inc()
        case protocol.Ended(reason="kicked"):
            metrics.FENCED.labels("uid").inc()
        case protocol.Finished(outcome=outcome, reason=reason):
            metrics.RECORDINGS_ENDED.labels(outcome, reason).inc()


def _refuse_claim(row: Recording | None, claim: Claim) -> Refused | None:
    if row is None:
        return Refused(reason="unknown")
    if row.finished and not (claim.resume is not None and lifecycle.leaves_behind(row)):
        return Refused(reason="exiting")
    if row.node not in (None, claim.node):
        return Refused(reason="not_yours")
    if claim.resume is None:
        # A recording that is being stopped gets no new worker.
        return Refused(reason="exiting") if row.status >= Status.STOPPING else None
    return None if claim.resume == row.epoch else Refused(reason="stale")


async def _open_file(session: AsyncSession, row: Recording, file: protocol.File) -> None:
    _media_from(row, file.start_ms)
    if await session.get(File, (row.sid, file.name)) is None:  # a new worker goes on with the same playlist
        session.add(File(sid=row.sid, **file.model_dump()))


async def _commit_slice(session: AsyncSession, row: Recording, slice_: protocol.Slice) -> str | None:
    known = await session.get(Slice, (row.sid, slice_.epoch, slice_.sequence))
    if known:
        return None if known.sha256 == slice_.sha256 else "another slice was committed under this epoch and sequence"
    if slice_.epoch > row.epoch:
        return "a slice of an epoch that was never given out"
    _media_from(row, slice_.start_ms)
    session.add(Slice(sid=row.sid, **slice_.model_dump(exclude={"tags", "content"}), tags=list(slice_.tags)))
    return None


def _media_from(row: Recording, start_ms: int) -> None:
    if row.first_media_ms is None:
        row.first_media_ms = start_ms
