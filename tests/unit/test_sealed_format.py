"""The format of sealed files: what is read is what was written, or an error; at any place, in any order."""

import hashlib
import io
import os
import random
from pathlib import Path

import pytest

from storage.errors import LocalFileError
from storage.sealed import CHUNK_BYTES, Seal

NAME = "sid_room_20261125190000000.ts"
HEAD = 24
SEALED = CHUNK_BYTES + 16
SIZES = (0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 3 * CHUNK_BYTES + 77)


@pytest.fixture
def seal() -> Seal:
    return Seal(os.urandom(32))


def _write(seal: Seal, path: Path, plain: bytes, name: str = NAME) -> Path:
    with path.open("wb") as file:
        assert seal.write(io.BytesIO(plain), file, name) == (len(plain), hashlib.sha256(plain).hexdigest())
    return path


def _read(seal: Seal, path: Path, name: str = NAME) -> bytes:
    with seal.file(path, name).open("rb") as file:
        return file.read()


def _is_refused(seal: Seal, path: Path, name: str = NAME) -> None:
    with pytest.raises(LocalFileError):
        _read(seal, path, name)


@pytest.mark.parametrize("size", SIZES)
def test_comes_back_and_shows_nothing(seal: Seal, tmp_path: Path, size: int) -> None:
    plain = (b"plain media " * (size // 12 + 1))[:size]
    path = _write(seal, tmp_path / "f", plain)
    assert _read(seal, path) == plain
    assert b"plain media" not in path.read_bytes()
    assert path.stat().st_size == HEAD + size + 16 * max(1, -(-size // CHUNK_BYTES))


@pytest.mark.parametrize("size", SIZES)
def test_every_cut_is_found(seal: Seal, tmp_path: Path, size: int) -> None:
    path = _write(seal, tmp_path / "f", os.urandom(size))
    whole = path.read_bytes()
    borders = {border + near for border in range(HEAD, len(whole), SEALED) for near in (-1, 0, 1, 15, 16, 17)}
    for length in sorted({0, 1, HEAD - 1, len(whole) - 1, *borders} & set(range(len(whole)))):
        path.write_bytes(whole[:length])
        _is_refused(seal, path)
    path.write_bytes(whole + b"\0")
    _is_refused(seal, path)
    path.write_bytes(whole + os.urandom(SEALED))
    _is_refused(seal, path)


@pytest.mark.parametrize("size", [0, 100, 2 * CHUNK_BYTES + 5])
def test_every_flipped_byte_is_found(seal: Seal, tmp_path: Path, size: int) -> None:
    path = _write(seal, tmp_path / "f", os.urandom(size))
    whole = path.read_bytes()
    places = range(len(whole)) if size < CHUNK_BYTES else (*range(HEAD), *random.Random(7).sample(range(HEAD, len(whole)), 60))
    for at in places:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        _is_refused(seal, path)


def test_chunks_keep_their_place(seal: Seal, tmp_path: Path) -> None:
    path = _write(seal, tmp_path / "f", os.urandom(3 * CHUNK_BYTES))
    whole = path.read_bytes()
    head, chunks = whole[:HEAD], [whole[at : at + SEALED] for at in range(HEAD, len(whole), SEALED)]
    for order in ((1, 0, 2), (0, 2, 1), (0, 0, 2), (0, 2), (1, 2), (0, 1, 2, 2)):
        path.write_bytes(head + b"".join(chunks[number] for number in order))
        _is_refused(seal, path)


def test_chunks_keep_to_their_file(seal: Seal, tmp_path: Path) -> None:
    one = _write(seal, tmp_path / "1", os.urandom(2 * CHUNK_BYTES))
    again = _write(seal, tmp_path / "2", os.urandom(2 * CHUNK_BYTES))
    first, second = one.read_bytes(), again.read_bytes()
    one.write_bytes(first[: HEAD + SEALED] + second[HEAD + SEALED :])
    _is_refused(seal, one)
    one.write_bytes(second[:HEAD] + first[HEAD:])
    _is_refused(seal, one)


def test_belongs_to_its_name_and_recording(seal: Seal, tmp_path: Path) -> None:
    path = _write(seal, tmp_path / "f", b"media")
    _is_refused(seal, path, "another.ts")
    _is_refused(Seal(os.urandom(32)), path)
    path.write_bytes(b"media that was never sealed" * 10)
    _is_refused(seal, path)


def test_the_same_media_is_sealed_differently_each_time(seal: Seal) -> None:
    first, second = (seal.write_bytes(b"media" * 1000, NAME) for _ in range(2))
    assert first[HEAD:] != second[HEAD:]


def test_is_read_from_any_place(seal: Seal, tmp_path: Path) -> None:
    plain = os.urandom(4 * CHUNK_BYTES + 123)
    path = _write(seal, tmp_path / "f", plain)
    chance = random.Random(3)
    with seal.file(path, NAME).open("rb") as file:
        assert file.seek(0, os.SEEK_END) == len(plain)
        assert file.read(10) == b""
        for _ in range(300):
            at, length = chance.randrange(len(plain) + 50), chance.randrange(2 * CHUNK_BYTES)
            file.seek(at)
            assert file.read(length) == plain[at : at + length]
            assert file.tell() == max(at, min(at + length, len(plain))) or at > len(plain)
        file.seek(0)
        parts = list(iter(lambda: file.read(100_000), b""))
    assert b"".join(parts) == plain


def test_one_chunk_is_read_without_the_others(seal: Seal, tmp_path: Path) -> None:
    plain = os.urandom(3 * CHUNK_BYTES)
    path = _write(seal, tmp_path / "f", plain)
    damaged = bytearray(path.read_bytes())
    damaged[HEAD + 5] ^= 1
    path.write_bytes(damaged)
    with seal.file(path, NAME).open("rb") as file:
        file.seek(2 * CHUNK_BYTES + 7)
        assert file.read(100) == plain[2 * CHUNK_BYTES + 7 :][:100]
        file.seek(0)
        with pytest.raises(LocalFileError):
            file.read(1)


def test_a_key_has_its_length_and_is_not_printed() -> None:
    with pytest.raises(ValueError, match="32"):
        Seal(b"short")
    assert repr(b"k" * 32) not in repr(Seal(b"k" * 32))
