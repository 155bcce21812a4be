"""The master key is rotated beside a running control plane; with what is interrupted, damaged or missing."""

import base64
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from api import rotation as module
from api.accounts import AccountError, Accounts, AppChange
from api.audit import SERVICE
from api.auth import Gatekeeper
from api.masterkey import Content, MasterKey, change, load_master_key, read
from api.rotation import Rotation, open_rotation
from api.store import Store
from api.tables import App, Recording, Secret
from tests.canary import secret
from tests.contract.conftest import Caller, World
from tests.rotation import digested_with, dump, key_ids, make_old, refused, signs_in, whole_rotation


async def test_the_whole_rotation(tmp_path: Path) -> None:
    await whole_rotation(tmp_path / "data")


async def test_no_byte_sealed_with_the_old_key_is_left_in_the_files_of_sqlite(world: World) -> None:
    await world.accounts.set_app(world.caller.app_id, AppChange(certificate=secret("certificate-in-files")))
    there, _ = await dump(world)
    (sealed,) = there.blobs.values()

    def kept() -> bytes:
        return b"".join(file.read_bytes() for file in world.settings.data_dir.glob("recorder.db*"))

    assert sealed in kept()
    async with open_rotation(world.settings, SERVICE) as rotation:
        done = await rotation.rotate()
    assert done.log_cleared
    assert sealed not in kept()


class Interrupted(Exception):
    """Stands for the end of the process."""


class Ending:
    """A store whose user is ended after some transactions."""

    def __init__(self, store: Store, transactions: int) -> None:
        self._store = store
        self._left = transactions

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        if not self._left:
            raise Interrupted
        self._left -= 1
        async with self._store.write() as session:
            yield session

    def read(self) -> contextlib.AbstractAsyncContextManager[AsyncSession]:
        return self._store.read()

    async def scrub(self) -> bool:
        return await self._store.scrub()


@pytest.mark.parametrize("transactions", range(7))
async def test_a_rotation_that_is_interrupted_anywhere_is_finished_later(
    world: World, transactions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH", 2)
    for number in range(7):
        app_id = await world.accounts.create_app((await world.accounts.list_all("customer"))[0].id)
        await world.accounts.set_app(app_id, AppChange(certificate=secret(f"certificate-{number:02}")))
    key = load_master_key(world.settings.key_file)
    broken = Rotation(settings=world.settings, store=Ending(world.plane.store, transactions), key=key, by=SERVICE)  # type: ignore[arg-type]  # a fake
    with pytest.raises(Interrupted):  # it takes one for the audit log, four for seven apps, and one for each of the first secrets
        await broken.rotate()
    sealed = min(2 * max(transactions - 1, 0), 7)
    there, apps = await dump(world)
    new, old = (MasterKey(one) for one in read(world.settings.key_file).secrets)
    assert len(there.opened_with(new, apps)) == sealed
    assert len(there.opened_with(old, apps)) == 7 - sealed
    assert await signs_in(world.caller)
    async with open_rotation(world.settings, SERVICE) as rotation:
        done = await rotation.reseal()
        assert done.sealed["certificates of apps"] == 7 - sealed
        assert done.current == new.current.id
    there, apps = await dump(world)
    assert len(there.opened_with(new, apps)) == 7


async def test_what_no_key_opens_is_named_and_keeps_the_old_keys(world: World) -> None:
    await world.accounts.set_app(world.caller.app_id, AppChange(certificate=secret("certificate-damaged")))
    async with world.plane.store.write() as session:
        await session.execute(update(App).values(sealed_certificate=b"x" * 60))
    async with open_rotation(world.settings, SERVICE) as rotation:
        done = await rotation.rotate()
        words = f"1 certificate of an app that no key in the file opens ({world.caller.app_id})"
        assert (done.sealed["certificates of apps"], words in done.left) == (0, True)
        assert words in await refused(rotation)
        await world.accounts.set_app(world.caller.app_id, AppChange(drop_certificate=True))
        assert words not in await refused(rotation)


async def test_the_files_of_the_first_start_may_be_gone(world: World) -> None:
    """Then a digest is made again when its customer signs in, and an operator's when the operator gets another secret."""
    operator = (await world.accounts.list_all("operator"))[0].id
    customer = (await world.accounts.list_all("customer"))[0].id
    for file in (world.settings.credentials_file, world.settings.operator_file):
        file.unlink()
    async with open_rotation(world.settings, SERVICE) as rotation:
        done = await rotation.rotate()
        assert done.digests == 0
        assert [one.split(" (")[0] for one in done.left] == [
            "1 secret of customers not used since the rotation",
            "1 secret of operators not used since the rotation",
            done.left[2],
        ]
        assert done.left[2].startswith("resourceIds acquired before the file was changed may be started for another 3")  # 360 s
        assert await signs_in(world.caller)
        await digested_with(world, customer, done.current)
        await world.accounts.rotate("operator", operator, old_end_in_ms=0)
        make_old(world.settings.key_file)
        assert await rotation.left() == []


async def test_a_wrong_secret_makes_no_digest_again(world: World) -> None:
    customer = await world.accounts.create("customer")
    async with open_rotation(world.settings, SERVICE) as rotation:
        await rotation.rotate()
        assert not await signs_in(Caller(world.http(customer.id, "guess"), ""))
        assert any(customer.secret_id in one for one in await rotation.left())


async def test_a_database_of_the_version_before_needs_its_key(world: World) -> None:
    async with world.plane.store.write() as session:
        await session.execute(update(Secret).values(key_id=None))
    for file in (world.settings.credentials_file, world.settings.operator_file):
        file.unlink()
    async with open_rotation(world.settings, SERVICE) as rotation:
        assert await rotation.drop() == []  # the only key
        await rotation.rotate()
        assert "1 secret of customers not used since" in await refused(rotation)
        assert await signs_in(world.caller)


async def test_a_key_that_was_added_is_made_current_later(world: World) -> None:
    async with open_rotation(world.settings, SERVICE) as rotation:
        (first,) = list(rotation.keys)
        added = await rotation.add()
        assert list(rotation.keys) == [first, added]
        assert await signs_in(world.caller)
        with pytest.raises(AccountError, match="there is no key 'deadbeef'"):
            await rotation.rotate("deadbeef")
        assert (await rotation.rotate(added)).current == added
        assert list(rotation.keys) == [added, first]
        assert (await rotation.rotate(added)).current == added
        assert list(rotation.keys) == [added, first]


async def test_a_key_that_came_back_is_dropped_again(world: World) -> None:
    """For a backup of its time, say."""
    async with open_rotation(world.settings, SERVICE) as rotation:
        await rotation.rotate()
        before = read(world.settings.key_file)
        for _ in range(2):
            make_old(world.settings.key_file)
            assert len(await rotation.drop()) == 1
            kept = read(world.settings.key_file)
            assert (len(kept.secrets), len(kept.former)) == (1, 1)
            change(world.settings.key_file, lambda content: Content(before.secrets, content.former))


async def test_a_control_plane_that_still_seals_with_an_older_key_keeps_it(world: World) -> None:
    """It has an old copy of the file, or one that others may read."""
    app_id = world.caller.app_id
    await world.accounts.set_app(app_id, AppChange(certificate=secret("certificate-before")))
    behind = MasterKey(*read(world.settings.key_file).secrets)
    async with open_rotation(world.settings, SERVICE) as rotation:
        await rotation.rotate()
        make_old(world.settings.key_file)
        await Accounts(world.plane.store, behind, by=SERVICE).set_app(app_id, AppChange(certificate=secret("certificate-behind")))
        assert "something was still sealed with one until now" in await refused(rotation)
        assert len(await rotation.drop()) == 1
    there, apps = await dump(world)
    opened = there.opened_with(load_master_key(world.settings.key_file), apps)
    assert opened["apps", "sealed_certificate", app_id] == secret("certificate-behind").encode()


async def test_a_digest_that_waits_through_another_rotation_is_left_out(world: World) -> None:
    """It would need a key that may be dropped meanwhile."""
    other = await world.accounts.create("customer")
    late = Gatekeeper(world.plane.store, load_master_key(world.settings.key_file))
    header = "Basic " + base64.b64encode(f"{other.id}:{other.secret}".encode()).decode()
    async with open_rotation(world.settings, SERVICE) as rotation:
        await rotation.rotate()
        await late.customer(header, "192.0.2.1")
        await rotation.rotate()
        await late._digest_again()
        assert (await key_ids(world))[other.id] == list(rotation.keys)[2]
        await late.customer(header, "192.0.2.1")
        await late._digest_again()
        assert (await key_ids(world))[other.id] == next(iter(rotation.keys))


async def test_a_recording_that_no_key_opens_holds_up_nothing(world: World) -> None:
    async with world.agent(claims=False) as agent:
        lost, other = await world.caller.started(), await replace(world.caller, cname="other").started()
        async with world.plane.store.write() as session:
            await session.execute(update(Recording).where(Recording.sid == lost.sid).values(sealed_spec=b"x" * 60))
        world.clock.ahead_ms = 6_000
        await world.plane.recovery.look()
        assert len(agent.received) == 3  # two starts, and the other one again
        world.clock.ahead_ms = 61_000
        await world.plane.recovery.look()
        for task in (lost, other):
            assert (await task.query()).status_code == 404
