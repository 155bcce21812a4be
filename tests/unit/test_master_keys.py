"""The file of the master key with several keys in it, read by a process that runs and replaced by a command."""

import multiprocessing
import os
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag

from api import masterkey
from api.masterkey import Content, Key, MasterKey, change, load_master_key, new_key, read
from api.resource import ResourceIdError, ResourceIds
from api.signer import Signer, public_key
from api.vault import Safe
from recorder.settings import ConfigError
from tests.unit.test_api_secrets import RESOURCE

OLD, NEW, THIRD = b"o" * 32, b"n" * 32, b"t" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file as the version before wrote it."""
    file = tmp_path / "master.key"
    file.touch(0o600)
    file.write_text(OLD.hex())
    return file


def put(path: Path, *secrets: bytes, former: tuple[bytes, ...] = ()) -> None:
    change(path, lambda _: Content(secrets, former))


def test_a_file_of_one_line_stays_valid(path: Path) -> None:
    key = load_master_key(path)
    assert [one.id for one in key.all()] == [Key(OLD).id]
    assert Safe(key, "p").open(Safe(MasterKey(OLD), "p").seal(b"x", "c"), "c") == b"x"
    assert path.read_text() == OLD.hex()


def test_the_first_key_seals_and_each_opens(path: Path) -> None:
    former = Safe(MasterKey(OLD), "p").seal(b"x", "c")
    put(path, NEW, OLD)
    key = load_master_key(path)
    safe = Safe(key, "p")
    assert (key.current.id, [one.id for one in key.all()]) == (Key(NEW).id, [Key(NEW).id, Key(OLD).id])
    assert safe.open(former, "c") == b"x"
    assert (safe.is_current(former, "c"), safe.is_current(safe.seal(b"x", "c"), "c")) == (False, True)
    assert Safe(MasterKey(NEW), "p").open(safe.seal(b"x", "c"), "c") == b"x"
    with pytest.raises(InvalidTag):
        Safe(MasterKey(OLD), "p").open(safe.seal(b"x", "c"), "c")
    again = safe.reseal(former, "c")
    assert again is not None
    assert Safe(MasterKey(NEW), "p").open(again, "c") == b"x"
    assert safe.reseal(again, "c") is None
    for sealed in (former, again):
        with pytest.raises(InvalidTag):
            safe.reseal(sealed, "another context")
        with pytest.raises(InvalidTag):
            Safe(key, "another purpose").open(sealed, "c")


def test_a_running_process_has_a_new_key_at_its_next_use(path: Path) -> None:
    key = load_master_key(path)
    safe, ids = Safe(key, "p"), ResourceIds(key)
    sealed, resource_id = safe.seal(b"x", "c"), ids.seal(RESOURCE)
    put(path, NEW, OLD)
    assert key.current.id == Key(NEW).id
    assert safe.open(sealed, "c") == b"x"
    assert safe.open(Safe(MasterKey(NEW), "p").seal(b"y", "c"), "c") == b"y"
    assert ids.open(resource_id).resource == RESOURCE
    assert ids.open(resource_id).master_key_id == Key(OLD).id
    assert ids.open(ids.seal(RESOURCE)).master_key_id == Key(NEW).id
    put(path, NEW)
    with pytest.raises(InvalidTag):
        safe.open(sealed, "c")
    with pytest.raises(ResourceIdError):
        ids.open(resource_id)


def test_what_a_look_does_not_show_is_read_when_it_is_needed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system of the network may answer from its memory."""
    key = load_master_key(path)
    seen = key._look()
    monkeypatch.setattr(key, "_look", lambda: seen)
    put(path, NEW, OLD)
    assert key.current.id == Key(OLD).id
    assert Safe(key, "p").open(Safe(MasterKey(NEW), "p").seal(b"y", "c"), "c") == b"y"
    assert key.current.id == Key(NEW).id
    put(path, THIRD, NEW)
    assert [one.id for one in key.all(naming=[Key(NEW).id])] == [Key(NEW).id, Key(OLD).id]  # known: nothing to read for
    assert [one.id for one in key.all(naming=[Key(THIRD).id])] == [Key(THIRD).id, Key(NEW).id]


def test_machines_with_a_copy_each_open_what_the_others_seal(path: Path, tmp_path: Path) -> None:
    """Added everywhere first, and made current then."""
    other = tmp_path / "other"
    other.mkdir()
    copy = other / "master.key"
    copy.touch(0o600)
    copy.write_text(OLD.hex())
    here, there = Safe(load_master_key(path), "p"), Safe(load_master_key(copy), "p")  # of processes that run
    for first, second in (((OLD, NEW), (OLD,)), ((OLD, NEW), (OLD, NEW)), ((NEW, OLD), (OLD, NEW)), ((NEW, OLD), (NEW, OLD))):
        put(path, *first)
        put(copy, *second)
        assert here.open(there.seal(b"x", "c"), "c") == there.open(here.seal(b"x", "c"), "c") == b"x"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must hold 32 bytes"),
        ("\n\n", "must hold 32 bytes"),
        (f"{NEW.hex()}\n{'0' * 63}\n", "line 2 must hold"),
        (f"canary\n{NEW.hex()}\n", "line 1 must hold"),
        (f"{NEW.hex()}\n\n{NEW.hex()}\n", "line 3 repeats"),
        (f"{NEW.hex()}\nmanifest canary\n", "line 2 must hold"),
        (f"manifest {NEW.hex()}\n", "must hold 32 bytes"),
        (f"{NEW.hex()}\nmanifest {OLD.hex()}\nmanifest {OLD.hex()}\n", "line 3 repeats"),
        (f"{NEW.hex()}é\n", "line 1 must hold"),
        (f"{NEW.hex()} {OLD.hex()}\n", "line 1 must hold"),
    ],
)
def test_a_bad_line_is_told_by_its_number_alone(path: Path, text: str, words: str) -> None:
    running = load_master_key(path)
    sealed = Safe(running, "p").seal(b"x", "c")
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        load_master_key(path)
    assert "canary" not in str(caught.value)
    assert NEW.hex() not in str(caught.value)
    assert Safe(running, "p").open(sealed, "c") == b"x"  # what runs goes on with what it has
    with pytest.raises(ConfigError, match=words):
        put(path, THIRD, NEW)
    assert path.read_text() == text


def test_a_process_that_runs_goes_on_without_the_file_and_takes_it_up_again(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = load_master_key(path)
    path.rename(path.with_name("away"))
    assert key.current.id == Key(OLD).id
    path.with_name("away").rename(path)
    put(path, NEW, OLD)
    path.chmod(0o640)
    assert key.current.id == Key(OLD).id
    for _ in range(3):
        with pytest.raises(InvalidTag):
            Safe(key, "p").open(b"x" * 60, "c")  # for which the file is read again
    whys = [record.__dict__["why"] for record in caplog.records if record.levelname == "ERROR"]
    assert [why.rpartition(": ")[2] for why in whys][-1:] == ["chmod 600 it"]
    assert len(whys) == 2  # it was away, and then open to others
    assert NEW.hex() not in caplog.text
    path.chmod(0o600)
    assert key.current.id == Key(NEW).id


def test_the_file_is_replaced_whole_private_and_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(path, NEW, OLD)
    assert path.read_text() == f"{NEW.hex()}\n{OLD.hex()}\n"
    assert path.stat().st_mode & 0o777 == 0o600
    inode = path.stat().st_ino
    put(path, NEW, OLD)
    assert path.stat().st_ino == inode  # nothing to change
    path.with_name(".master.key.new").write_text("left by one who was killed")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(ConfigError, match="cannot be replaced") as caught:
            put(path, THIRD, NEW, OLD)
    assert THIRD.hex() not in str(caught.value)
    assert read(path) == Content((NEW, OLD))
    assert [file.name for file in path.parent.iterdir()] == ["master.key"]
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", lambda _self, _target: os._exit(7))  # killed before the rename
        killed = multiprocessing.get_context("fork").Process(target=put, args=(path, THIRD, NEW, OLD))
        killed.start()
        killed.join(10)
    assert killed.exitcode == 7
    assert read(path) == Content((NEW, OLD))
    put(path, THIRD, NEW, OLD)
    assert read(path) == Content((THIRD, NEW, OLD))
    assert [file.name for file in path.parent.iterdir()] == ["master.key"]


def test_a_link_to_the_file_stays_one(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    key = load_master_key(link)
    put(link, NEW, OLD)
    assert link.is_symlink()
    assert key.current.id == Key(NEW).id


def test_nothing_is_written_that_could_not_be_read(path: Path) -> None:
    with pytest.raises(ConfigError, match="line 2 repeats"):
        put(path, NEW, NEW)
    assert path.read_text() == OLD.hex()


def add_one(path: Path) -> None:
    change(path, lambda content: Content((new_key(), *content.secrets)))


def test_commands_at_the_same_time_lose_no_key(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    adding = [context.Process(target=add_one, args=(path,)) for _ in range(8)]
    for process in adding:
        process.start()
    for process in adding:
        process.join(10)
    assert [process.exitcode for process in adding] == [0] * 8
    assert len(read(path).secrets) == 9
    assert read(path).secrets[-1] == OLD


def test_what_verifies_manifests_outlives_its_key(path: Path) -> None:
    (before,) = Signer(load_master_key(path)).published()
    put(path, NEW, OLD)
    signer = Signer(load_master_key(path))
    assert [one.id for one in signer.published()] == [Signer(MasterKey(NEW)).published()[0].id, before.id]
    put(path, NEW, former=(public_key(Key(OLD)),))
    assert signer.published()[1:] == [before]
    assert OLD.hex() not in path.read_text()


def test_a_key_is_in_no_text() -> None:
    for one in (MasterKey(OLD), Key(OLD), Content((OLD,))):
        assert repr(OLD) not in f"{one!r} {one}"
        assert OLD.hex() not in f"{one!r} {one}"
    assert len(new_key()) == masterkey.KEY_BYTES
