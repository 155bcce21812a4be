"""Calls about storage: testing a bucket, a strict start, other keys after the end, and the keys that sign manifests."""

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from recorder import manifest
from recorder.manifest import Object
from recorder.outputs.names import Names
from recorder.protocol import BackupDone, Claimed, Done, Finished, Refused, RenewStorage, Sign, Signed, SliceStored
from tests.contract.conftest import STORAGE, Task, World, a_deployment, eventually, open_world
from tests.contract.fake_agent import FakeAgent, refusing
from tests.contract.test_wrong_input import assert_invalid

LOCAL = {"vendor": 100, "region": 0, "bucket": "rec", "fileNamePrefix": ["d1"]}
RENEWED = STORAGE | {"accessKey": "AK2", "secretKey": "SK2"}
REFUSED = Finished(outcome="failed", reason="storage", uploading="unknown", leaves_behind=True)
BACKUPED = Finished(outcome="complete", reason="stopped", uploading="backuped", leaves_behind=True)


async def _test(world: World, storage: dict[str, object]) -> httpx.Response:
    return await world.caller.http.post("/v1/ext/storage/test", json={"storageConfig": storage})


async def _change(world: World, sid: str, storage: dict[str, object], caller: httpx.AsyncClient | None = None) -> httpx.Response:
    return await (caller or world.caller.http).post(f"/v1/ext/recordings/{sid}/storage", json={"storageConfig": storage})


async def _ended(world: World, agent: FakeAgent, finished: Finished, *, stored: bool = True) -> Task:
    """A recording of one slice that has ended, and left something behind."""
    task = await world.caller.started(storageConfig=STORAGE)
    await eventually(lambda: task.sid in agent.claimed)
    await agent.record(task.sid, "a.ts")
    if not stored:
        await agent.emit(task.sid, SliceStored(name="a.ts", backup=True))
    await agent.finish(task.sid, finished)
    return task


async def _told(world: World, sid: str) -> dict[str, object]:
    answer = await world.caller.http.get(f"/v1/ext/recordings/{sid}")
    assert answer.status_code == 200
    body: dict[str, object] = answer.json()
    return body


async def test_a_bucket_that_takes_files(world: World) -> None:
    answer = await _test(world, LOCAL)
    assert (answer.status_code, answer.json()) == (200, {"writable": True, "verified": "head", "removed": True})
    assert not [path for path in world.settings.recordings_dir.rglob("*") if path.is_file()]


async def test_a_bucket_that_takes_none(world: World) -> None:
    world.settings.recordings_dir.mkdir(parents=True)
    (world.settings.recordings_dir / "rec").write_text("a file where the bucket should be")
    answer = await _test(world, LOCAL)
    assert answer.status_code == 200
    assert answer.json()["writable"] is False
    assert answer.json()["problem"]


@pytest.mark.parametrize(
    "endpoint", ["http://127.0.0.1:9", "http://[::1]:9", "http://169.254.169.254", "http://10.1.2.3:9000", "http://0x7f.1"]
)
async def test_a_bucket_at_an_address_inside(world: World, endpoint: str) -> None:
    answer = await _test(world, STORAGE | {"extensionParams": {"endpoint": endpoint}})
    assert answer.status_code == 200
    assert answer.json() == {"writable": False, "problem": "the endpoint's address is not allowed", "removed": False}


async def test_a_bucket_described_wrongly(world: World) -> None:
    answer = await _test(world, {"vendor": 11, "bucket": "/"})
    assert_invalid(answer, [f"storageConfig.{field}" for field in ("accessKey", "secretKey", "bucket", "extensionParams.endpoint")])
    assert (await world.caller.http.post("/v1/ext/storage/test", json={})).status_code == 400
    stranger = await world.caller.http.post("/v1/ext/storage/test", json={"storageConfig": LOCAL}, auth=("nobody", "nothing"))
    assert stranger.status_code == 401


@pytest.fixture
async def strict(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(a_deployment(tmp_path / "data", strict_start=True)) as world:
        yield world


@pytest.mark.parametrize("mode", ["mix", "individual"])
async def test_a_strict_start_writes_the_first_file(strict: World, mode: str) -> None:
    async with strict.agent():
        task = await strict.caller.started(mode, storageConfig=LOCAL)
    names = Names(task.sid, strict.caller.cname)
    written = {path.name: path.read_bytes() for path in (strict.settings.recordings_dir / "rec" / "d1").iterdir()}
    assert list(written) == [names.playlist() if mode == "mix" else names.manifest()]


async def test_a_strict_start_into_a_bucket_that_takes_nothing(strict: World) -> None:
    strict.settings.recordings_dir.mkdir(parents=True)
    blocked = strict.settings.recordings_dir / "rec"
    blocked.write_text("a file where the bucket should be")
    async with strict.agent() as agent:
        resource = await strict.caller.resource()
        answer = await strict.caller.start(resource, storageConfig=LOCAL)
        assert_invalid(answer, ["clientRequest.storageConfig"])
        assert agent.received == []
        blocked.unlink()
        assert (await strict.caller.start(resource, storageConfig=LOCAL)).status_code == 200  # the same resourceId
        assert (await strict.caller.start(resource, storageConfig=LOCAL)).status_code == 201


@pytest.mark.parametrize("finished", [REFUSED, BACKUPED])
async def test_other_keys_after_the_end(world: World, agent: FakeAgent, finished: Finished) -> None:
    task = await _ended(world, agent, finished)
    assert (await _told(world, task.sid))["uploadingStatus"] == finished.uploading
    answer = await _change(world, task.sid, RENEWED)
    assert (answer.status_code, answer.json()) == (200, {"sid": task.sid})
    assert agent.commands(task.sid) == [RenewStorage(sid=task.sid)]
    assert isinstance(await agent.claim(task.sid, resume=1), Claimed)
    assert agent.claimed[task.sid].spec["storage"]["secret_key"] == "SK2"
    assert await agent.claim(task.sid) == Refused(reason="exiting")  # nobody records it again
    await agent.emit(task.sid, SliceStored(name="a.ts"), BackupDone(uploading="uploaded"))
    told = await _told(world, task.sid)
    assert (told["uploadingStatus"], told["outcome"]) == ("uploaded", finished.outcome)
    assert await agent.claim(task.sid, resume=1) == Refused(reason="exiting")  # its secrets are gone
    assert (await _change(world, task.sid, RENEWED)).status_code == 404
    await agent.emit(task.sid, BackupDone(uploading="unknown"))  # too late
    assert (await _told(world, task.sid))["uploadingStatus"] == "uploaded"


async def test_another_place_while_nothing_is_stored(world: World, agent: FakeAgent) -> None:
    elsewhere = RENEWED | {"bucket": "other", "fileNamePrefix": ["d2"]}
    task = await _ended(world, agent, REFUSED)
    assert_invalid(await _change(world, task.sid, elsewhere), ["storageConfig.bucket", "storageConfig.fileNamePrefix"])
    assert agent.commands(task.sid) == []
    task = await _ended(world, agent, BACKUPED, stored=False)
    assert (await _change(world, task.sid, elsewhere)).status_code == 200
    assert agent.commands(task.sid) == [RenewStorage(sid=task.sid, moves=True)]
    await agent.claim(task.sid, resume=1)  # of another reason: it may be storing there
    assert (agent.claimed[task.sid].spec["storage"]["bucket"], agent.claimed[task.sid].spec.get("next_storage")) == ("rec", None)
    await agent.claim(task.sid, resume=1, moves=True)
    assert agent.claimed[task.sid].spec["storage"]["bucket"] == "other"
    assert (await _told(world, task.sid))["fileList"] == f"d2/{task.sid}_{world.caller.cname}.m3u8"


async def test_another_place_that_the_node_cannot_go_to_any_more(world: World) -> None:
    """It has stored something that it has not told yet."""
    elsewhere = RENEWED | {"bucket": "other"}
    async with world.agent(script=refusing(RenewStorage, "bad_request")) as agent:
        task = await world.caller.started(storageConfig=STORAGE)
        await eventually(lambda: task.sid in agent.claimed)
        assert_invalid(await _change(world, task.sid, elsewhere), ["storageConfig.bucket"])
        await agent.claim(task.sid)
        assert agent.claimed[task.sid].spec["storage"]["bucket"] == "rec"


async def test_another_place_that_the_node_hears_of_late(world: World, agent: FakeAgent) -> None:
    task = await world.caller.started(storageConfig=STORAGE)
    await eventually(lambda: task.sid in agent.claimed)
    agent.silent.set()
    answer = await _change(world, task.sid, RENEWED | {"bucket": "other", "fileNamePrefix": ["d2"]})
    assert (answer.status_code, answer.json()["code"]) == (206, 65)
    assert (await _told(world, task.sid))["fileList"] == f"{task.sid}_{world.caller.cname}.m3u8"
    await agent.claim(task.sid, resume=1, moves=True)
    assert agent.claimed[task.sid].spec["storage"]["bucket"] == "other"
    assert (await _told(world, task.sid))["fileList"] == f"d2/{task.sid}_{world.caller.cname}.m3u8"


async def test_new_keys_take_back_another_place(world: World, agent: FakeAgent) -> None:
    task = await world.caller.started(storageConfig=STORAGE)
    await eventually(lambda: task.sid in agent.claimed)
    assert (await _change(world, task.sid, RENEWED | {"bucket": "other"})).status_code == 200
    assert (await task.post("update", {"storageConfig": RENEWED})).status_code == 200
    await agent.claim(task.sid, resume=1, moves=True)
    assert agent.claimed[task.sid].spec["storage"]["bucket"] == "rec"


async def test_a_place_nobody_has_claimed_yet_is_changed_at_once(world: World) -> None:
    async with world.agent(claims=False) as agent:
        task = await world.caller.started(storageConfig=STORAGE)
        assert (await _change(world, task.sid, RENEWED | {"bucket": "other"})).status_code == 200
        assert agent.commands(task.sid) == []
        await agent.claim(task.sid)
        assert agent.claimed[task.sid].spec["storage"]["bucket"] == "other"


async def test_other_keys_are_for_the_owner(world: World, agent: FakeAgent) -> None:
    task = await _ended(world, agent, REFUSED)
    stranger = await world.another_customer()
    for sid, caller in ((task.sid, stranger.http), ("0" * 32, None), ("x", None)):
        assert (await _change(world, sid, RENEWED, caller)).status_code == 404
    assert agent.commands(task.sid) == []


async def test_secrets_of_a_node_that_never_came_back_are_wiped(world: World, agent: FakeAgent) -> None:
    task = await _ended(world, agent, REFUSED)
    world.clock.ahead_ms = 10 * 86_400_000
    await world.plane.recovery.look()
    assert (await _change(world, task.sid, RENEWED)).status_code == 200
    world.clock.ahead_ms = 12 * 86_400_000
    await world.plane.recovery.look()
    assert (await _change(world, task.sid, RENEWED)).status_code == 404


async def test_a_stop_that_ended_in_the_backup_store(world: World, agent: FakeAgent) -> None:
    task = await world.caller.started(storageConfig=STORAGE)
    await eventually(lambda: task.sid in agent.claimed)
    await agent.record(task.sid, "a.ts")
    await agent.emit(task.sid, SliceStored(name="a.ts", backup=True))
    await agent.finish(task.sid, BACKUPED)
    assert (await _told(world, task.sid))["uploadingStatus"] == "backuped"
    assert (await task.query()).status_code == 404


async def test_the_deployment_signs_for_the_owner_alone(world: World, agent: FakeAgent) -> None:
    task = await world.caller.started(storageConfig=STORAGE)
    await eventually(lambda: task.sid in agent.claimed)
    made = manifest.build(task.sid, "room1", [Object(name="a.ts", size=1, sha256=hashlib.sha256(b"a").hexdigest())], (), created_ms=1)
    answer = await agent.peer.request(Sign(sid=task.sid, sha256=made.digest()))
    assert isinstance(answer, Signed)
    published = json.loads((await world.caller.http.get("/v1/ext/keys")).text)["keys"]
    assert [(one["id"], one["algorithm"]) for one in published] == [(answer.key, "Ed25519")]
    key = load_pem_public_key(published[0]["pem"].encode())
    assert isinstance(key, Ed25519PublicKey)
    manifest.check_signature(made.model_copy(update={"signature": answer.signature}), [key])
    async with world.agent("node-2") as other:
        assert await other.peer.request(Sign(sid=task.sid, sha256=made.digest())) == Refused(reason="not_yours")
    assert await agent.peer.request(Sign(sid="0" * 32, sha256=made.digest())) == Refused(reason="not_yours")
    assert await agent.emit(task.sid, SliceStored(name="a.ts")) == Done()
