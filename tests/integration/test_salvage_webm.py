"""WebM slices that a killed worker left open: wherever they are torn, what is whole of them plays."""

from pathlib import Path
from random import Random
from typing import Literal

import av
import pytest

from recorder.outputs import torn_webm
from recorder.outputs.mux import WebmFile
from tests.outputs_media import SECOND_NS, decode_errors, video

_FPS = 15
_FRAMES = 60
_INTERVAL_NS = SECOND_NS // _FPS


def _written(path: Path, codec: Literal["vp8", "vp9"], *, close: bool) -> None:
    """What lies on the disk after so many frames."""
    file = WebmFile(path, codec, width=160, height=120)
    for picture in video(codec, _FRAMES, fps=_FPS, gop=20):
        file.write(picture.data, picture.time_ns, keyframe=picture.keyframe, duration_ns=_INTERVAL_NS)
    if close:
        file.close()
        return
    left = path.read_bytes()
    file.close()
    path.write_bytes(left)


def _frames(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(video=0) if frame.time is not None]


def _length(path: Path) -> float:
    """In seconds, as the header tells it."""
    with av.open(str(path)) as container:
        return (container.duration or 0) / av.time_base


@pytest.mark.parametrize("codec", ["vp8", "vp9"])
def test_what_a_killed_worker_leaves_is_a_file_that_knows_its_length(tmp_path: Path, codec: Literal["vp8", "vp9"]) -> None:
    path = tmp_path / "open.webm"
    _written(path, codec, close=False)
    duration_ns = torn_webm.mend(path)
    frames = _frames(path)
    assert 0 <= _FRAMES / _FPS - duration_ns / SECOND_NS < 1.2  # a cluster is in memory until it has a second
    assert len(frames) == pytest.approx(duration_ns / _INTERVAL_NS, abs=0.1)
    assert decode_errors(path) == ""
    assert _length(path) == pytest.approx(duration_ns / SECOND_NS, abs=0.002)
    mended = path.read_bytes()
    assert torn_webm.mend(path) == duration_ns
    assert path.read_bytes() == mended


def test_a_file_that_was_closed_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "closed.webm"
    _written(path, "vp8", close=True)
    whole = path.read_bytes()
    assert torn_webm.mend(path) == pytest.approx(_FRAMES * _INTERVAL_NS, abs=SECOND_NS // 500)
    assert path.read_bytes() == whole


def test_a_slice_torn_anywhere_keeps_each_block_that_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "torn.webm"
    _written(path, "vp8", close=True)
    whole = path.read_bytes()
    ends = _block_ends(whole)
    assert len(ends) == _FRAMES
    heads = {end + beside for end in ends for beside in range(-3, 15) if end + beside <= len(whole)}
    for length in sorted(heads | set(range(700)) | set(range(0, len(whole) + 1, 97))):
        path.write_bytes(whole[:length])
        duration_ns = torn_webm.mend(path)
        blocks = sum(end <= length for end in ends)
        expected = blocks * _INTERVAL_NS if blocks > 1 else 0
        assert duration_ns == pytest.approx(expected, abs=SECOND_NS // 500), length
        if blocks > 1 and length < ends[-1]:
            assert path.stat().st_size == ends[blocks - 1]
    dice = Random(7)
    for length in (dice.randrange(ends[1], len(whole)) for _ in range(25)):
        path.write_bytes(whole[:length])
        duration_ns = torn_webm.mend(path)
        assert decode_errors(path) == ""
        assert len(_frames(path)) == sum(end <= length for end in ends)
        assert _length(path) == pytest.approx(duration_ns / SECOND_NS, abs=0.002)


def test_a_slice_with_bits_flipped_raises_nothing(tmp_path: Path) -> None:
    path = tmp_path / "flipped.webm"
    _written(path, "vp8", close=False)
    torn = path.read_bytes()
    dice = Random(11)
    for _ in range(1500):
        flipped = bytearray(torn[: dice.randrange(1, len(torn))])
        for _ in range(dice.randrange(1, 8)):
            flipped[dice.randrange(min(len(flipped), 600 if dice.random() < 0.7 else len(flipped)))] ^= 1 << dice.randrange(8)
        path.write_bytes(flipped)
        assert torn_webm.mend(path) >= 0
        assert path.stat().st_size <= len(flipped)


def _block_ends(whole: bytes) -> list[int]:
    """Where each block ends, found by the bytes of its frame."""
    at, ends = 0, []
    for picture in video("vp8", _FRAMES, fps=_FPS, gop=20):
        at = whole.index(picture.data, at) + len(picture.data)
        ends.append(at)
    return ends
