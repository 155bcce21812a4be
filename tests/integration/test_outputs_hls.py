"""The composite as HLS, judged as a player sees it."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from recorder.outputs.hls import CompositeHls
from recorder.outputs.mux import TsFile
from recorder.outputs.playlist import render
from recorder.spec import Canvas
from tests.outputs_media import (
    SECOND_NS,
    FolderSpool,
    aac,
    access_units,
    audio_frames,
    decode_errors,
    files,
    joined,
    packets,
    play,
    probe,
    shelf,
    slices,
    sound,
    streams,
    video,
)

CANVAS = Canvas(width=160, height=120, fps=15)
ACCESS_UNIT_DELIMITER = b"\0\0\0\1\x09\xf0"  # put in front by the muxer: TS demands it
AAC_NS = 1024 * SECOND_NS // 48_000


def composite(folder: Path, *, picture: bool = True, sounds: bool = True, slice_seconds: float = 5) -> tuple[CompositeHls, FolderSpool]:
    shelved, spool = shelf(folder / "spool")
    return CompositeHls(shelved, canvas=CANVAS if picture else None, audio=sounds, slice_seconds=slice_seconds), spool


def test_slices_play_on_without_a_seam(tmp_path: Path) -> None:
    output, spool = composite(tmp_path)
    pictures, sounds = video("h264", 255, gop=75), aac(797)  # 17 s
    products = play(output, pictures, sounds) + output.close()
    made = slices(products)
    assert [(item.start_ns, item.duration_ns) for item in made[:3]] == [(5 * index * SECOND_NS, 5 * SECOND_NS) for index in range(3)]
    assert made[3].duration_ns == pytest.approx(2 * SECOND_NS, abs=AAC_NS)
    for item in made:
        assert packets(spool.folder / item.name, "v")[0]["flags"].startswith("K")
        assert decode_errors(spool.folder / item.name) == ""
        head = (spool.folder / item.name).read_bytes()[: 3 * 188]
        pids = [int.from_bytes(head[at + 1 : at + 3], "big") & 0x1FFF for at in range(0, len(head), 188)]
        assert 0 in pids[:2]  # PAT
        assert 4096 in pids  # PMT
    whole = joined(spool.folder, made)
    assert decode_errors(whole) == ""
    times = [float(packet["pts_time"]) for packet in packets(whole, "v")]
    assert [later - earlier for earlier, later in pairwise(times)] == pytest.approx([1 / 15] * 254, abs=2e-5)
    assert times[0] == pytest.approx(10)  # the constant that keeps times and clock positive
    heard = [float(packet["pts_time"]) for packet in packets(whole, "a")]
    assert [later - earlier for earlier, later in pairwise(heard)] == pytest.approx([1024 / 48000] * 797, abs=2e-5)
    assert heard[0] == pytest.approx(10 - 1024 / 48000, abs=2e-5)
    assert float(streams(whole)["h264"]["duration"]) == pytest.approx(17, abs=1 / 15)


def test_not_a_bit_is_changed(tmp_path: Path) -> None:
    output, spool = composite(tmp_path)
    pictures, sounds = video("h264", 255, gop=75), aac(797)
    whole = joined(spool.folder, slices(play(output, pictures, sounds) + output.close()))
    assert [unit.removeprefix(ACCESS_UNIT_DELIMITER) for unit in access_units(whole)] == [item.data for item in pictures]
    assert audio_frames(whole) == b"".join(item.data for item in sounds)


def test_sound_belongs_to_the_slice_of_its_time(tmp_path: Path) -> None:
    output, spool = composite(tmp_path)
    products = play(output, video("h264", 255, gop=75), aac(797)) + output.close()
    for item in slices(products)[1:]:
        start = item.start_ns / SECOND_NS + 10
        first = float(packets(spool.folder / item.name, "a")[0]["pts_time"])
        assert start <= first + 2e-5 < start + 1024 / 48000 + 4e-5


def test_what_is_told(tmp_path: Path) -> None:
    output, _ = composite(tmp_path)
    assert output.next_cut_ns is None
    products = play(output, video("h264", 255, gop=75), aac(797))
    assert output.next_cut_ns == 20 * SECOND_NS
    products += output.close()
    assert [file.model_dump() for file in files(products)] == [
        {
            "name": "0123456789abcdef0123456789abcdef_room.m3u8",
            "track": "audio_and_video",
            "uid": 0,
            "mixed": True,
            "playable": True,
            "start_ms": 1_700_000_000_000,
        }
    ]
    assert render(slices(products)[:2], ended=False, correct_extinf=False).splitlines()[5:] == [
        "#EXT-X-DISCONTINUITY",
        "#EXT-X-AGORA-ROTATE:WIDTH=160,HEIGHT=120,ROTATE=0,TIME=20231114221320000",
        "#EXT-X-AGORA-TRACK-EVENT:EVENT=START,TRACK_TYPE=VIDEO,TIME=20231114221320000",
        "#EXT-X-AGORA-TRACK-EVENT:EVENT=START,TRACK_TYPE=AUDIO,TIME=20231114221320000",
        "#EXTINF:5.000000",
        "0123456789abcdef0123456789abcdef_room_20231114221320000.ts",
        "#EXTINF:5.000000",
        "0123456789abcdef0123456789abcdef_room_20231114221325000.ts",
    ]


def test_sound_alone(tmp_path: Path) -> None:
    output, spool = composite(tmp_path, picture=False, slice_seconds=15)
    sounds = aac(900, layout="stereo")
    made = slices(play(output, [], sounds) + output.close())
    assert [round(item.duration_ns / AAC_NS) for item in made] == [704, 197]
    whole = joined(spool.folder, made)
    assert decode_errors(whole) == ""
    facts = streams(whole)
    assert set(facts) == {"aac"}
    assert (facts["aac"]["channels"], facts["aac"]["profile"]) == ("2", "LC")
    assert float(facts["aac"]["duration"]) == pytest.approx(901 * 1024 / 48000, abs=0.022)
    assert len(sound(whole)) == 901 * 1024
    size = whole.stat().st_size
    assert size < 1.2 * sum(len(item.data) for item in sounds)  # tables and small packets don't eat up the disk


def test_picture_alone(tmp_path: Path) -> None:
    output, spool = composite(tmp_path, sounds=False)
    products = play(output, video("h264", 255, gop=75), []) + output.close()
    made = slices(products)
    assert [item.duration_ns for item in made] == pytest.approx([5 * SECOND_NS] * 3 + [2 * SECOND_NS], abs=1)
    assert files(products)[0].track == "video"
    assert set(streams(spool.folder / made[0].name)) == {"h264"}


def test_an_interruption(tmp_path: Path) -> None:
    output, spool = composite(tmp_path, slice_seconds=15)
    pictures, sounds = video("h264", 255, gop=75), aac(797)
    products = play(output, pictures[:100], [item for item in sounds if item.time_ns < 6.64 * SECOND_NS])
    products += output.mark_discontinuity()
    assert output.next_cut_ns is None
    products += play(output, pictures[100:], [item for item in sounds if item.time_ns >= 7 * SECOND_NS]) + output.close()
    first, second = slices(products)
    assert first.duration_ns == pytest.approx(100 * SECOND_NS / 15, abs=AAC_NS)
    assert second.start_ns == 10 * SECOND_NS  # the next keyframe
    assert second.discontinuity
    assert second.tags == ()
    assert decode_errors(spool.folder / second.name) == ""


def test_times_wrap_after_a_day(tmp_path: Path) -> None:
    wrap_ns = (1 << 33) * 100_000 // 9 - 10 * SECOND_NS
    file = TsFile(tmp_path / "wrap.ts", video=True, audio=None)
    for item in video("h264", 60):
        time_ns = item.time_ns + wrap_ns - 2 * SECOND_NS
        file.write_video(item.data, time_ns, time_ns, keyframe=item.keyframe)
    file.close()
    assert decode_errors(tmp_path / "wrap.ts") == ""
    stamps = probe(tmp_path / "wrap.ts", "-correct_ts_overflow", "0", "-select_streams", "v", "-show_entries", "packet=pts")
    values = [int(line.partition("pts=")[2].split("|")[0]) for line in stamps.splitlines() if "pts=" in line]
    assert values[0] == (1 << 33) - 180_000
    assert [(later - earlier) % (1 << 33) for earlier, later in pairwise(values)] == [6000] * 59


WRITER = """
import sys, time
from pathlib import Path
from recorder.outputs.hls import CompositeHls
from tests.integration.test_outputs_hls import CANVAS
from tests.outputs_media import aac, play, shelf, video

output = CompositeHls(shelf(Path(sys.argv[1]))[0], canvas=CANVAS, audio=True, slice_seconds=15)
play(output, video("h264", 105), aac(328))
print("written", flush=True)
time.sleep(60)
"""


def test_a_killed_writer_leaves_all_but_the_last_second(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen((sys.executable, "-c", WRITER, str(tmp_path / "spool")), stdout=subprocess.PIPE, cwd=root) as process:
        assert process.stdout
        assert process.stdout.readline() == b"written\n"
        process.kill()
    (path,) = (tmp_path / "spool" / "partial").glob("*.ts")
    assert decode_errors(path) == ""
    for kind in "va":
        assert float(packets(path, kind)[-1]["pts_time"]) - 10 > 7 - 1


def test_the_playlist_loads_no_media_library() -> None:
    check = "import sys, recorder.outputs.playlist; sys.exit(bool({'av', 'numpy', 'aiortc'} & set(sys.modules)))"
    assert subprocess.run((sys.executable, "-c", check), check=False, timeout=30, cwd=Path(__file__).parents[2]).returncode == 0
