"""A deployment whose master key is rotated while it runs, with something of every kind that depends on the key."""

import asyncio
import hashlib
import os
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from sqlalchemy import LargeBinary, select

from api.accounts import AccountError, AppChange, Certificates, Issued
from api.audit import SERVICE
from api.endpoints import Signers
from api.masterkey import MasterKey, read
from api.rotation import Rotation, open_rotation
from api.tables import App, Endpoint, Recording, Secret, Table
from api.vault import Vault
from recorder import manifest
from recorder.manifest import Object
from recorder.protocol import App as AppAnswer
from recorder.protocol import AskApp, Claimed, Sign, Signed
from recorder.settings import Recording as RecordingSettings
from recorder.settings import Settings
from recorder.spec import RecordingSpec
from tests.canary import secret
from tests.contract.conftest import Caller, Task, World, eventually, open_world
from tests.contract.fake_agent import FakeAgent

CERTIFICATE = secret("rotated-certificate")


@dataclass
class Sealed:
    """All sealed columns of the database, by table, column and row."""

    blobs: dict[tuple[str, str, str], bytes]

    def opened_with(self, key: MasterKey, apps: dict[str, str]) -> dict[tuple[str, str, str], bytes]:
        """What this key alone opens, in its context. `apps`: by sid."""
        vault, certificates, signers = Vault(key), Certificates(key), Signers(key)
        opened = {}
        for (table, column, row_id), blob in self.blobs.items():
            try:
                match table:
                    case "recordings":
                        plain = vault.open(blob, app_id=apps[row_id], sid=row_id).with_secrets()
                    case "apps":
                        plain = (certificates.open(App(id=row_id, sealed_certificate=blob)) or "").encode()
                    case "endpoints":
                        plain = signers.open(Endpoint(app_id=row_id, sealed_secret=blob), 0)[0].encode()
            except InvalidTag:
                continue
            opened[table, column, row_id] = plain
        return opened


async def dump(world: World) -> tuple[Sealed, dict[str, str]]:
    """Every sealed value there is, whichever table a later version adds, and the apps of recordings."""
    blobs = {}
    async with world.plane.store.read() as session:
        for table in Table.metadata.sorted_tables:
            (row_id, *_) = table.primary_key.columns
            for column in table.columns:
                if isinstance(column.type, LargeBinary) and column.name != "digest":
                    for name, value in (await session.execute(select(row_id, column).where(column.is_not(None)))).all():
                        blobs[table.name, column.name, name] = value
        apps = {row.sid: row.app_id for row in (await session.execute(select(Recording.sid, Recording.app_id))).all()}
    return Sealed(blobs), apps


def make_old(key_file: Path) -> None:
    """As if nobody had changed it for an hour."""
    an_hour_ago = time.time() - 3600
    os.utime(key_file, (an_hour_ago, an_hour_ago))


async def signs_in(caller: Caller) -> bool:
    return (await caller.http.get("/v1/ncs/ip")).status_code == 200


async def key_ids(world: World) -> dict[str, str | None]:
    """Which key the digest of each owner was made with."""
    async with world.plane.store.read() as session:
        return {row.owner_id: row.key_id for row in (await session.execute(select(Secret.owner_id, Secret.key_id))).all()}


async def digested_with(world: World, owner_id: str, key_id: str) -> None:
    async with asyncio.timeout(5):
        while (await key_ids(world))[owner_id] != key_id:
            await asyncio.sleep(0.01)


@dataclass
class Before:
    """What there was before the rotation."""

    task: Task
    unstarted: str  # a resourceId
    other: Issued  # a customer who does not sign in until the end
    spec: RecordingSpec
    manifest: manifest.Manifest


async def _filled(world: World, agent: FakeAgent) -> Before:
    """One of everything that depends on the key."""
    other = await world.accounts.create("customer")
    await world.accounts.set_app(world.caller.app_id, AppChange(certificate=CERTIFICATE))
    endpoint = world.plane.endpoints
    await endpoint.set(world.caller.app_id, url="https://93.184.215.14/", events=[1])
    await endpoint.rotate(world.caller.app_id)
    task = await world.caller.started()
    await eventually(lambda: task.sid in agent.claimed)
    await agent.record(task.sid, "0.ts")
    unstarted = await replace(world.caller, cname="acquired before").resource()
    objects = [Object(name="0.ts", size=1, sha256=hashlib.sha256(b"a").hexdigest())]
    made = manifest.build(task.sid, "room1", objects, (), created_ms=1)
    spec = RecordingSpec.model_validate(agent.claimed[task.sid].spec)
    assert spec.media_key
    return Before(task, unstarted, other, spec, await signed(agent, made))


async def signed(agent: FakeAgent, made: manifest.Manifest) -> manifest.Manifest:
    answer = await agent.peer.request(Sign(sid=made.sid, sha256=made.digest()))
    assert isinstance(answer, Signed)
    return made.model_copy(update={"key": answer.key, "signature": answer.signature})


async def published(world: World) -> dict[str, Ed25519PublicKey]:
    keys: dict[str, Ed25519PublicKey] = {}
    for one in (await world.caller.http.get("/v1/ext/keys")).json()["keys"]:
        key = load_pem_public_key(one["pem"].encode())
        assert isinstance(key, Ed25519PublicKey)
        keys[one["id"]] = key
    return keys


async def refused(rotation: Rotation) -> str:
    with pytest.raises(AccountError) as caught:
        await rotation.drop()
    return str(caught.value)


async def whole_rotation(data: Path, **api: Any) -> None:
    """Before, between and after: nothing fails, and in the end the old key is gone from file and database."""
    settings = Settings(data_dir=data, api={"requests_per_second": 10_000, **api}, recording=RecordingSettings(encrypt_at_rest=True))
    async with open_world(settings) as world, world.agent() as agent:
        before = await _filled(world, agent)
        (old,) = read(settings.key_file).secrets
        there, apps = await dump(world)
        assert sorted({(table, column) for table, column, _ in there.blobs}) == [
            ("apps", "sealed_certificate"),
            ("endpoints", "sealed_old_secret"),
            ("endpoints", "sealed_secret"),
            ("recordings", "sealed_spec"),
        ]
        plain = there.opened_with(MasterKey(old), apps)
        assert plain.keys() == there.blobs.keys()
        async with open_rotation(settings, SERVICE) as rotation:  # as the command line does it, beside the running control plane
            done = await rotation.rotate()
            (new, kept) = read(settings.key_file).secrets
            assert kept == old
            assert done.current == MasterKey(new).current.id
            assert list(done.sealed.values()) == [1, 1, 1, 1]
            assert done.digests == 2  # customer and operator of the first start
            await _nothing_needs_the_old_key(world, MasterKey(new), MasterKey(old), plain)
            again = await rotation.reseal()
            assert (sum(again.sealed.values()), again.digests) == (0, 0)
            await _goes_on(world, agent, before)
            await _is_dropped_when_nothing_needs_it(world, agent, before, rotation)
        assert read(settings.key_file).secrets == (new,)
        assert await signs_in(world.caller)
        assert await signs_in(Caller(world.http(before.other.id, before.other.secret), ""))
        assert (await world.caller.started()).sid != before.task.sid
        keys = await published(world)
        manifest.check_signature(before.manifest, [keys[before.manifest.key]])
        assert len(keys) == 2


async def _nothing_needs_the_old_key(world: World, new: MasterKey, old: MasterKey, plain: dict[tuple[str, str, str], bytes]) -> None:
    there, apps = await dump(world)
    assert there.opened_with(new, apps) == plain
    assert there.opened_with(old, apps) == {}
    assert there.opened_with(new, dict.fromkeys(apps, "another app")).keys() == {one for one in plain if one[0] != "recordings"}
    moved = Sealed({(table, column, f"{row_id}x"): blob for (table, column, row_id), blob in there.blobs.items()})
    assert moved.opened_with(new, {f"{sid}x": app for sid, app in apps.items()}) == {}


async def _goes_on(world: World, agent: FakeAgent, before: Before) -> None:
    """Whoever held something of the time before can use it."""
    sid = before.task.sid
    assert await signs_in(world.caller)
    assert (await before.task.query()).json()["serverResponse"]["status"] == 5
    resumed = await agent.claim(sid, resume=1)
    assert isinstance(resumed, Claimed)
    assert RecordingSpec.model_validate(resumed.spec) == before.spec
    taken_over = await agent.claim(sid)
    assert isinstance(taken_over, Claimed)
    assert (taken_over.epoch, RecordingSpec.model_validate(taken_over.spec).media_key) == (2, before.spec.media_key)
    app = await agent.peer.request(AskApp(app_id=world.caller.app_id))
    assert isinstance(app, AppAnswer)
    assert app.certificate == CERTIFICATE
    late = replace(world.caller, cname="acquired before")
    started = await late.start(before.unstarted)
    assert started.status_code == 200
    late_sid = started.json()["sid"]
    await eventually(lambda: late_sid in agent.claimed)
    await _ended(Task(late, before.unstarted, late_sid), agent)
    after = await signed(agent, before.manifest)
    keys = await published(world)
    assert list(keys) == [after.key, before.manifest.key]
    for one in (after, before.manifest):
        manifest.check_signature(one, [keys[one.key]])


async def _ended(task: Task, agent: FakeAgent) -> None:
    async with asyncio.TaskGroup() as group:
        stopping = group.create_task(task.stop())
        await eventually(lambda: bool(agent.commands(task.sid)))
        await agent.finish(task.sid)
    assert stopping.result().status_code == 206  # nothing was recorded, or all is told


async def _is_dropped_when_nothing_needs_it(world: World, agent: FakeAgent, before: Before, rotation: Rotation) -> None:
    old_id = list(rotation.keys)[1]
    said = await refused(rotation)
    theirs = f"{before.other.secret_id} of {before.other.id}"
    assert re.fullmatch(
        rf"older keys are still needed: 1 secret of customers not used since the rotation \({theirs}\); "
        rf"1 recording whose resourceId was acquired before the rotation \({before.task.sid}\); "
        r"resourceIds acquired before the file was changed may be started for another \d+ s",
        said,
    )
    assert (await key_ids(world))[before.other.id] == old_id
    assert await signs_in(Caller(world.http(before.other.id, before.other.secret), ""))
    await digested_with(world, before.other.id, next(iter(rotation.keys)))
    assert "secret" not in await refused(rotation)
    await agent.finish(before.task.sid)
    assert (await refused(rotation)).startswith("older keys are still needed: resourceIds acquired")
    make_old(world.settings.key_file)
    assert await rotation.drop() == [old_id]
    assert await rotation.drop() == []
