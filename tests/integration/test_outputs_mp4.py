"""MP4 parts of the composite, judged as a player sees them."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from recorder.outputs.mp4 import CompositeMp4
from recorder.outputs.mux import Mp4File
from recorder.spec import Canvas
from recorder.worker.salvage import salvage
from storage.spool import RecordingSpool
from tests.outputs_media import (
    SECOND_NS,
    Encoded,
    aac,
    audio_frames,
    decode_errors,
    files,
    packets,
    play,
    shelf,
    slices,
    sound,
    streams,
    video,
)

CANVAS = Canvas(width=160, height=120, fps=15)
ADTS_BYTES = 7
AAC_NS = 1024 * SECOND_NS // 48_000


def boxes(path: Path) -> list[str]:
    """The types of the top-level boxes."""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        found.append(data[at + 4 : at + 8].decode())
        at += int.from_bytes(data[at : at + 4], "big")
    return found


def onset(path: Path) -> float:
    """When the tone begins, in seconds of the file."""
    samples = sound(path)
    return float(np.argmax(np.abs(samples) > 4000)) / 48_000 + float(streams(path)["aac"]["start_time"])


@pytest.mark.parametrize("start_ns", [0, 123_456_789_012])
def test_a_part(tmp_path: Path, start_ns: int) -> None:
    shelved, spool = shelf(tmp_path / "spool")
    output = CompositeMp4(shelved, canvas=CANVAS, audio=True)
    pictures = [Encoded(item.data, item.time_ns + start_ns, item.keyframe) for item in video("h264", 150, gop=45)]
    sounds = [Encoded(item.data, item.time_ns + start_ns) for item in aac(469, silent_samples=96_000)]
    products = play(output, pictures, sounds) + output.close()
    (made,), (file,) = slices(products), files(products)
    path = spool.folder / made.name
    assert (file.name, file.start_ms) == (made.name, made.start_ms)
    assert made.name == "0123456789abcdef0123456789abcdef_room_0.mp4"
    assert made.playlist is None
    assert made.start_ns == start_ns
    assert made.duration_ns == pytest.approx(10 * SECOND_NS, abs=AAC_NS)
    assert boxes(path).index("moov") < boxes(path).index("mdat")
    assert decode_errors(path) == ""
    facts = streams(path)
    assert (facts["h264"]["pix_fmt"], facts["h264"]["nb_frames"]) == ("yuv420p", "150")
    assert (facts["aac"]["channels"], facts["aac"]["sample_rate"]) == ("1", "48000")
    assert float(facts["h264"]["start_time"]) == 0
    assert float(facts["h264"]["duration"]) == pytest.approx(10, abs=1e-3)
    assert float(facts["aac"]["duration"]) == pytest.approx(10, abs=0.022)
    times = [float(packet["pts_time"]) for packet in packets(path, "v")]
    assert [later - earlier for earlier, later in pairwise(times)] == pytest.approx([1 / 15] * 149, abs=2e-5)
    assert onset(path) == pytest.approx(2, abs=1e-3)
    assert audio_frames(path) == b"".join(item.data[ADTS_BYTES:] for item in sounds)
    assert spool.left_open() == []


def test_parts_are_cut_at_keyframes_past_the_time(tmp_path: Path) -> None:
    shelved, spool = shelf(tmp_path / "spool")
    output = CompositeMp4(shelved, canvas=CANVAS, audio=True, part_seconds=4)
    products = play(output, video("h264", 150, gop=45), aac(469, silent_samples=336_000)) + output.close()
    made = slices(products)
    assert [item.name.rpartition("_")[2] for item in made] == ["0.mp4", "1.mp4"]
    assert [item.name for item in made] == [file.name for file in files(products)]
    assert (made[0].duration_ns, made[1].start_ns) == (6 * SECOND_NS, 6 * SECOND_NS)
    first, second = (spool.folder / item.name for item in made)
    assert [streams(path)["h264"]["nb_frames"] for path in (first, second)] == ["90", "60"]
    assert packets(second, "v")[0]["flags"].startswith("K")
    assert decode_errors(first) == decode_errors(second) == ""
    assert onset(second) == pytest.approx(1, abs=1e-3)  # 7 s of the recording


def test_parts_are_cut_at_keyframes_past_the_size(tmp_path: Path) -> None:
    shelved, _ = shelf(tmp_path / "spool")
    pictures = video("h264", 150, gop=15)
    limit = sum(len(item.data) for item in pictures) // 4
    output = CompositeMp4(shelved, canvas=CANVAS, audio=False, part_bytes=limit, first_index=5)
    made = slices(play(output, pictures, []) + output.close())
    assert [item.name.rpartition("_")[2] for item in made] == ["5.mp4", "6.mp4", "7.mp4", "8.mp4"][: len(made)]
    assert len(made) > 1
    assert all(limit <= item.size < 2 * limit for item in made[:-1])  # up to a second is in memory when it is measured
    assert sum(item.duration_ns for item in made) == pytest.approx(10 * SECOND_NS, abs=1)
    assert all(item.start_ns % SECOND_NS == 0 for item in made)


def test_sound_alone(tmp_path: Path) -> None:
    shelved, spool = shelf(tmp_path / "spool")
    output = CompositeMp4(shelved, canvas=None, audio=True)
    (made,) = slices(play(output, [], aac(469, layout="stereo")) + output.close())
    path = spool.folder / made.name
    assert boxes(path).index("moov") < boxes(path).index("mdat")
    assert float(streams(path)["aac"]["duration"]) == pytest.approx(10, abs=0.03)
    assert streams(path)["aac"]["channels"] == "2"
    assert decode_errors(path) == ""


def test_sound_that_begins_late_stays_late(tmp_path: Path) -> None:
    shelved, spool = shelf(tmp_path / "spool")
    output = CompositeMp4(shelved, canvas=CANVAS, audio=True)
    late = [item for item in aac(469, silent_samples=144_000) if item.time_ns > 1.5 * SECOND_NS]
    (made,) = slices(play(output, video("h264", 150, gop=45), late) + output.close())
    path = spool.folder / made.name
    assert onset(path) == pytest.approx(3, abs=1e-3)
    assert float(streams(path)["h264"]["start_time"]) == 0
    assert streams(path)["h264"]["nb_frames"] == "150"


def test_pictures_with_uneven_times_keep_them(tmp_path: Path) -> None:
    shelved, spool = shelf(tmp_path / "spool")
    output = CompositeMp4(shelved, canvas=CANVAS, audio=True)
    at_ms = [number * 67 + (700 if number > 40 else 0) + (number * 7919 % 23) for number in range(150)]
    pictures = [Encoded(item.data, ms * 1_000_000, item.keyframe) for item, ms in zip(video("h264", 150), at_ms, strict=True)]
    (made,) = slices(play(output, pictures, aac(469)) + output.close())
    seen = [float(packet["pts_time"]) for packet in packets(spool.folder / made.name, "v")]
    assert seen == pytest.approx([ms / 1000 for ms in at_ms], abs=2e-5)


def test_a_part_that_cannot_be_finished_stops_nothing_and_is_finished_later(tmp_path: Path) -> None:
    shelved, _ = shelf(tmp_path / "spool")
    recording = RecordingSpool(tmp_path / "spool")
    output = CompositeMp4(shelved, canvas=CANVAS, audio=True, part_seconds=4)
    obstacle = recording.partial("0123456789abcdef0123456789abcdef_room_0.mp4")
    obstacle.mkdir(parents=True)  # as a full disk would
    products = play(output, video("h264", 150, gop=45), aac(469)) + output.close()
    assert [item.name.rpartition("_")[2] for item in slices(products)] == ["1.mp4"]
    obstacle.rmdir()
    salvage(recording, 1)
    (made,) = [record for record in recording.records() if record["type"] == "slice"]
    assert made["name"] == obstacle.name
    assert made["duration_ns"] == pytest.approx(6 * SECOND_NS, abs=AAC_NS)
    assert decode_errors(recording.file(obstacle.name)) == ""
    assert recording.left_open() == []


def test_what_a_crash_leaves_of_a_part_plays(tmp_path: Path) -> None:
    file = Mp4File(tmp_path / "open.mp4", origin_ns=0, size=(160, 120), audio=True)
    for picture in video("h264", 105):
        file.write_video(picture.data, picture.time_ns, keyframe=picture.keyframe, duration_ns=SECOND_NS // 15)
        for item in aac(328):
            if picture.time_ns <= item.time_ns < picture.time_ns + SECOND_NS // 15:
                file.write_audio(item.data, item.time_ns)
    left = tmp_path / "left.mp4"
    left.write_bytes((tmp_path / "open.mp4").read_bytes())
    file.close()
    assert decode_errors(left) == ""
    for kind in "va":
        assert 7 - 2.2 < float(packets(left, kind)[-1]["pts_time"]) < 7
