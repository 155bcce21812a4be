"""Manifests: what they bind together, and what `verify` finds of damage done on purpose."""

import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cli.verify import command
from recorder import manifest
from recorder.manifest import ManifestError, Object
from recorder.outputs.names import Names

SID = "0123456789abcdef0123456789abcdef"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _signed(files: dict[str, bytes], lost: tuple[str, ...] = ()) -> manifest.Manifest:
    objects = [Object(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest()) for name, data in files.items()]
    unsigned = manifest.build(SID, "room", objects, lost, created_ms=1_700_000_000_000)
    return unsigned.model_copy(update={"key": "k", "signature": manifest.sign(KEY, SID, unsigned.digest())})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    where = tmp_path / "lessons" / "d1"
    where.mkdir(parents=True)
    files = {f"{SID}_room_{n}.ts": bytes([n]) * 1000 for n in range(3)} | {f"{SID}_room.m3u8": b"#EXTM3U\n"}
    for name, data in files.items():
        (where / name).write_bytes(data)
    (where / Names(SID, "room").manifest()).write_bytes(_signed(files).encode())
    (tmp_path / "key.pem").write_text(PEM)
    return tmp_path / "lessons"


def _verify(folder: Path, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(command, [str(folder), "--key", str(folder.parent / "key.pem"), *options])
    return result.exit_code, result.output


def test_verify_is_content_with_what_was_recorded(folder: Path) -> None:
    assert _verify(folder) == (0, f"d1/{SID}_room_manifest.json: 4 objects, 3008 bytes, all as recorded\n")


def test_verify_finds_one_flipped_byte(folder: Path) -> None:
    path = folder / "d1" / f"{SID}_room_1.ts"
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)
    code, output = _verify(folder)
    assert code == 1
    assert output.splitlines() == [f"d1/{SID}_room_manifest.json: '{SID}_room_1.ts: has other bytes'"]


def test_verify_finds_one_missing_and_one_short_object(folder: Path) -> None:
    (folder / "d1" / f"{SID}_room_0.ts").unlink()
    (folder / "d1" / f"{SID}_room_2.ts").write_bytes(b"\2" * 999)
    code, output = _verify(folder)
    assert code == 1
    assert [line.split("_room_")[-1] for line in output.splitlines()] == ["0.ts: is missing'", "2.ts: has 999 bytes instead of 1000'"]


@pytest.mark.parametrize("field", ["name", "size", "sha256", "chain"])
def test_verify_finds_a_changed_manifest(folder: Path, field: str) -> None:
    path = folder / "d1" / f"{SID}_room_manifest.json"
    content = json.loads(path.read_bytes())
    content["objects"][1][field] = {"name": "x", "size": 1, "sha256": "0" * 64, "chain": "0" * 64}[field]
    path.write_text(json.dumps(content))
    code, output = _verify(folder)
    assert (code, "the chain of objects is broken" in output) == (1, True)


def test_verify_finds_objects_left_out_of_the_manifest(folder: Path) -> None:
    """The chain is whole again, as a forger would make it; the signature is not."""
    path = folder / "d1" / f"{SID}_room_manifest.json"
    whole = manifest.read(path.read_bytes())
    shorter = manifest.build(SID, "room", [Object(**one.model_dump(exclude={"chain"})) for one in whole.objects[:2]], (), created_ms=1)
    path.write_bytes(shorter.model_copy(update={"signature": whole.signature}).encode())
    code, output = _verify(folder)
    assert (code, "the signature is not by this key" in output) == (1, True)


def test_verify_without_signatures_says_nothing_of_them(folder: Path) -> None:
    path = folder / "d1" / f"{SID}_room_manifest.json"
    whole = manifest.read(path.read_bytes())
    path.write_bytes(whole.model_copy(update={"signature": "AAAA"}).encode())
    assert _verify(folder)[0] == 1
    assert _verify(folder, "--unsigned")[0] == 0


def test_verify_tells_what_the_manifest_says_is_lost(folder: Path) -> None:
    path = folder / "d1" / f"{SID}_room_manifest.json"
    path.write_bytes(_signed({}, (f"{SID}_room_9.ts",)).encode())
    code, output = _verify(folder)
    assert (code, "was lost while it was recorded" in output) == (1, True)


def test_verify_takes_a_recording_that_is_not_complete_for_a_problem(folder: Path) -> None:
    (folder / "d1" / f"{SID}_room_manifest.json").write_bytes(manifest.opening(SID))
    code, output = _verify(folder)
    assert (code, "not a complete manifest" in output) == (1, True)


def test_verify_wants_a_manifest(folder: Path) -> None:
    assert _verify(folder, "--sid", "f" * 32) == (1, "there is no manifest\n")


def test_verify_never_leaves_the_folder(folder: Path) -> None:
    (folder.parent / "secret").write_bytes(b"x")
    (folder / "d1" / f"{SID}_room_manifest.json").write_bytes(_signed({"../../secret": b"x"}).encode())
    code, output = _verify(folder)
    assert (code, "cannot be read" in output) == (1, True)


def test_verify_takes_the_answer_of_the_api_for_a_key(folder: Path) -> None:
    keys = folder.parent / "keys.json"
    keys.write_text(json.dumps({"keys": [{"id": "k", "algorithm": "Ed25519", "pem": PEM}]}))
    assert CliRunner().invoke(command, [str(folder), "--key", str(keys)]).exit_code == 0


def test_a_manifest_is_bound_to_its_recording() -> None:
    one = _signed({"a": b"1"})
    manifest.check_signature(one, [KEY.public_key()])
    assert manifest.read(one.encode()) == one
    with pytest.raises(ManifestError):
        manifest.check_signature(one.model_copy(update={"sid": "f" * 32}), [KEY.public_key()])
    with pytest.raises(ManifestError):
        manifest.check_signature(one, [Ed25519PrivateKey.generate().public_key()])
