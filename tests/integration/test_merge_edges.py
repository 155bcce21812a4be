"""`merge` where recordings are not as they should be, or not as they mostly are."""

import contextlib
import hashlib
import random
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import av
import pytest

from recorder.frames import EncodedFrame, Track
from recorder.outputs.playlist import render
from recorder.outputs.track import VideoTrackOutput
from recorder.spec import Canvas
from recorder.tools import measure
from recorder.tools.content import tone_hz
from recorder.tools.offline import OfflineError
from recorder.tools.offline.merge import DONE, LOG, merge
from recorder.tools.offline.options import ALL, PICTURES, SOUND, Options
from tests import outputs_media
from tests.offline_media import SID, Folder, brightness, person, recording

UID = 101
ALL_OF_IT = Options(mode=ALL)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Somebody who is away for six seconds, in slices of four."""
    return recording(tmp_path_factory.mktemp("recorded"), [person(end=6), person(start=12, end=18)], 18)


@pytest.fixture
def folder(recorded: Folder, tmp_path: Path) -> Folder:
    return Folder(Path(shutil.copytree(recorded.path, tmp_path / "copy")), recorded.slices)


def pictures(path: Path) -> Iterator[str]:
    for _, frame in measure.video_frames(path):
        yield hashlib.sha256(frame.to_ndarray().tobytes()).hexdigest()


def rewritten(folder: Folder, playlist: str, old: str, new: str) -> None:
    path = folder.path / playlist
    path.write_text(path.read_text().replace(old, new))


def test_pictures_are_copied_and_stand_while_nothing_comes(folder: Folder) -> None:
    (path,) = merge(folder.path, ALL_OF_IT)
    joined = folder.path / "joined.ts"
    joined.write_bytes(b"".join((folder.path / item.name).read_bytes() for item in folder.of(UID, "video")))
    assert list(pictures(path)) == list(pictures(joined))
    times = [at for at, _ in measure.video_frames(path)]
    assert [round(after - before, 1) for before, after in pairwise(times) if after - before > 0.1] == [6.0]
    assert max(map(abs, measure.av_offsets(path, tone_hz(UID)))) < 0.02
    assert not [onset for onset in measure.beep_onsets(path, tone_hz(UID)) if 6.5 < onset < 11.5]


@pytest.mark.parametrize(("fps", "frames"), [(None, 12 * 30 + 1), (20, 18 * 20)])
def test_black_while_nothing_comes_however_short(folder: Folder, fps: int | None, frames: int) -> None:
    (path,) = merge(folder.path, Options(mode=ALL, fill="black_frame", fps=fps))
    assert max(brightness(path, (6.1, 9, 11.9))) < 20
    assert min(brightness(path, (0.1, 5.9, 12.1, 17.9))) > 30
    assert len(list(measure.video_frames(path))) == pytest.approx(frames, abs=1)
    assert max(map(abs, measure.av_offsets(path, tone_hz(UID)))) < (0.02 if fps is None else 0.035)


def test_black_before_the_first_picture(tmp_path: Path) -> None:
    people = [person(codec=None, end=2), person(sound=False, start=2, end=4)]
    folder = recording(tmp_path, people, 4)
    (path,) = merge(folder.path, Options(mode=ALL, size=(160, 90)))
    assert max(brightness(path, (0, 1.9))) < 20
    assert min(brightness(path, (2.1, 3.9))) > 30


def test_a_failover_that_overlaps(folder: Folder) -> None:
    """The last two slices are recorded twice."""
    for kind in ("video", "audio"):
        playlist = f"{SID}_room__uid_s_{UID}__uid_e_{kind}.m3u8"
        again = [item.model_copy(update={"name": f"bak0_{item.name}"}) for item in folder.of(UID, kind)[-2:]]
        for item in again:
            shutil.copy(folder.path / item.name.removeprefix("bak0_"), folder.path / item.name)
        (folder.path / f"bak0_{playlist}").write_text(render(again, ended=True, correct_extinf=False))
    (path,) = merge(folder.path, ALL_OF_IT)
    assert measure.decode_errors([path]) == []
    video = measure.probe(path).stream("video")
    assert video
    assert video.frames == 12 * 30


def test_the_list_that_was_sent_again_counts(folder: Folder) -> None:
    playlist = f"{SID}_room__uid_s_{UID}__uid_e_video.m3u8"
    whole = (folder.path / playlist).read_text()
    (folder.path / playlist.replace(".m3u8", "_1234_1.m3u8")).write_text(whole)
    (folder.path / playlist.replace(".m3u8", "_1234_0.m3u8")).write_text(whole + "#" * 100)
    (folder.path / playlist).write_text(render(folder.of(UID, "video")[:1], ended=False, correct_extinf=False))
    (path,) = merge(folder.path, Options(mode=PICTURES))
    assert measure.probe(path).duration == pytest.approx(18, abs=0.1)


def test_two_recordings_of_one_participant(folder: Folder) -> None:
    other = "b" * 32
    for path in list(folder.path.iterdir()):
        text = path.read_bytes()
        (folder.path / path.name.replace(SID, other)).write_bytes(
            text.replace(SID.encode(), other.encode()) if path.suffix == ".m3u8" else text
        )
    made = merge(folder.path, Options(mode=SOUND))
    assert [path.name for path in made] == [f"{SID}_{UID}_0_merge.m4a", f"{other}_{UID}_0_merge.m4a"]
    with pytest.raises(OfflineError, match="2 recordings of 101"):
        merge(folder.path, Options(mode=SOUND, uid=UID, output="one.m4a"))


def test_what_is_made_where_there_is_only_one_kind(tmp_path: Path) -> None:
    people = [person(102, None, end=2), person(103, end=2, sound=False)]
    folder = recording(tmp_path, people, 2)
    assert [path.name for path in merge(folder.path, ALL_OF_IT)] == ["102_0_merge.m4a", "103_0_merge.mp4"]
    assert [path.suffix for path in merge(folder.path, Options(also_sound=True))] == [".m4a", ".mp4"]
    with pytest.raises(OfflineError, match="nothing to make"):
        merge(folder.path, Options(mode=SOUND, uid=103))
    with pytest.raises(OfflineError, match="nothing is recorded of 7"):
        merge(folder.path, Options(uid=7))


def test_a_composite_without_two_of_its_slices(tmp_path: Path) -> None:
    folder = recording(tmp_path, [person(end=16)], 16, canvas=Canvas(width=320, height=180, fps=30, bitrate_kbps=300))
    ((_, missing, _, empty, *_),) = folder.slices.values()
    (folder.path / missing.name).unlink()
    (folder.path / empty.name).write_bytes((b"\x47\x1f\xff\x10" + b"\xff" * 184) * 40)
    with pytest.raises(OfflineError, match=f"1 slice is missing or empty: {missing.name}"):
        merge(folder.path, Options(mode=ALL, composite=True))
    (path,) = merge(folder.path, Options(mode=ALL, composite=True, ignore_missing=True))
    assert path.name == f"{SID}_0_merge_av.mp4"
    assert measure.probe(path).duration == pytest.approx(16, abs=0.1)
    times = [at for at, _ in measure.video_frames(path) if at < 15.9]
    assert [round(after - before, 1) for before, after in pairwise(times) if after - before > 0.1] == [4.0]
    assert max(times) == pytest.approx(12, abs=0.1)
    assert max(map(abs, measure.av_offsets(path, tone_hz(UID)))) < 0.02
    (folder.path / missing.name).write_bytes((folder.path / empty.name).read_bytes())
    with pytest.raises(OfflineError) as caught:
        merge(folder.path, Options(mode=ALL, composite=True))
    assert all(item.name in str(caught.value) for item in (missing, empty))


def test_pictures_that_are_decoded_in_another_order_are_copied(tmp_path: Path) -> None:
    shelf, spool = outputs_media.shelf(tmp_path / "spool")
    output = VideoTrackOutput(shelf, UID, slice_seconds=2)
    products = []
    media = outputs_media.video("h264", 75, gop=30, b_frames=2)
    for item in media:
        products += output.write(EncodedFrame(Track(UID, "video"), "h264", item.data, item.keyframe, item.time_ns, 160, 120))
    items = outputs_media.slices(products + output.close())
    assert len(items) > 1
    (spool.folder / str(items[0].playlist)).write_text(render(items, ended=True, correct_extinf=False))
    (path,) = merge(spool.folder, ALL_OF_IT)
    assert measure.decode_errors([path]) == []
    with av.open(str(path)) as container:
        assert any(packet.pts != packet.dts for packet in container.demux(video=0) if packet.size)
    times = [at for at, _ in measure.video_frames(path)]
    assert len(times) == 75
    steps = [after - before for before, after in pairwise(times)]
    assert steps[5:] == pytest.approx([1 / 15] * 69, abs=0.003)  # the recorder learns the order from the first ones
    joined = outputs_media.joined(spool.folder, items)
    assert list(pictures(path)) == list(pictures(joined))


@pytest.mark.parametrize("text", [b"#EXTM3U\n#EXTINF:1.0,\nfile:///etc/passwd\n", b"ffconcat version 1.0\nfile 'x'\n"])
def test_a_slice_is_never_taken_for_a_list(folder: Folder, text: bytes) -> None:
    (folder.path / folder.of(UID, "video")[0].name).write_bytes(text * 100)
    with pytest.raises(OfflineError, match="cannot be read"):
        merge(folder.path, ALL_OF_IT)


def test_every_broken_slice_is_named(folder: Folder) -> None:
    broken = [folder.of(UID, "video")[0].name, folder.of(UID, "audio")[1].name]
    for name in broken:
        (folder.path / name).write_bytes(b"no media" * 1000)
    with pytest.raises(OfflineError) as caught:
        merge(folder.path, ALL_OF_IT)
    assert all(name in str(caught.value) for name in broken)


def test_nothing_is_left_of_a_file_that_cannot_be_made(folder: Folder) -> None:
    (folder.path / f"{UID}_0_merge_av.mp4").mkdir()
    before = set(folder.path.iterdir())
    with pytest.raises(OfflineError, match=r"101_0_merge_av\.mp4 cannot be made"):
        merge(folder.path, ALL_OF_IT)
    assert set(folder.path.iterdir()) - before == {folder.path / LOG}
    assert not (folder.path / DONE).exists()


def test_years_of_absence_are_refused(folder: Folder) -> None:
    item = folder.of(UID, "video")[-1]
    later = item.name.replace("_2023", "_2123")
    (folder.path / item.name).rename(folder.path / later)
    rewritten(folder, str(item.playlist), item.name, later)
    with pytest.raises(OfflineError, match="-s leaves them out"):
        merge(folder.path, ALL_OF_IT)
    (path,) = merge(folder.path, Options(mode=ALL, drop_absences=True))
    assert measure.probe(path).duration == pytest.approx(18 + item.duration_ns / 1e9, abs=0.2)


def test_progress_is_told(folder: Folder) -> None:
    told: list[tuple[str, int, int]] = []
    merge(folder.path, ALL_OF_IT, lambda *what: told.append(what))
    assert {(name, round(total / 1e9)) for name, _, total in told} == {(f"{UID}_0_merge_av.mp4", 18)}
    done = [at for _, at, _ in told]
    assert done == sorted(done)
    assert done[-1] == told[-1][2]
    assert len(done) > 15


@pytest.mark.parametrize("seed", range(12))
def test_damage_anywhere_is_told_or_survived(damaged: Folder, tmp_path: Path, seed: int) -> None:
    folder = Path(shutil.copytree(damaged.path, tmp_path / "copy"))
    chance = random.Random(seed)
    for path in chance.sample(sorted(path for path in folder.iterdir() if path.is_file()), 2):
        data = bytearray(path.read_bytes())
        for _ in range(chance.choice((1, 5, 50))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data[: chance.randrange(len(data) // 2, 2 * len(data))])
    with contextlib.suppress(OfflineError):
        merge(folder, Options(mode=ALL, fps=chance.choice((None, 10)), ignore_missing=chance.random() < 0.5))
    assert not list(folder.glob(".*"))


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    people = [person(end=3), person(102, "vp8", end=3)]
    return recording(tmp_path_factory.mktemp("damaged"), people, 3, slice_seconds=1.5, stream_mode="standard")


def test_names_that_are_no_text_are_told(folder: Folder) -> None:
    path = folder.path / f"{SID}_room__uid_s_{UID}__uid_e_video.m3u8"
    path.write_bytes(path.read_bytes().replace(b"_2023", b"\xff_2023"))
    with pytest.raises(OfflineError, match="slices are missing"):
        merge(folder.path, ALL_OF_IT)
    assert r"\udcff_2023" in (folder.path / LOG).read_text()
