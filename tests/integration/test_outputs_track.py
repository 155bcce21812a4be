"""Files of individual recording, judged as a player sees them."""

import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

import av
import numpy as np
import pytest

from recorder.frames import EncodedFrame, Track
from recorder.outputs import Product
from recorder.outputs.mux import WebmFile
from recorder.outputs.track import AudioTrackOutput, VideoTrackOutput
from tests.outputs_media import (
    SECOND_NS,
    Encoded,
    aac,
    access_units,
    audio_frames,
    decode_errors,
    joined,
    packets,
    shelf,
    slices,
    streams,
    video,
)

ACCESS_UNIT_DELIMITER = b"\0\0\0\1\x09\xf0"


def write(output: VideoTrackOutput, codec: Literal["h264", "vp8", "vp9"], frames: Sequence[Encoded], shift_ns: int = 0) -> list[Product]:
    products: list[Product] = []
    for item in frames:
        size = {"width": 160, "height": 120} if item.keyframe else {}
        products += output.write(EncodedFrame(Track(7, "video"), codec, item.data, item.keyframe, item.time_ns + shift_ns, **size))
    return products


def test_h264_slices(tmp_path: Path) -> None:
    shelved, spool = shelf(tmp_path / "spool")
    output = VideoTrackOutput(shelved, 7)
    pictures = video("h264", 600, gop=50)
    made = slices(write(output, "h264", pictures, shift_ns=-3_000_000) + output.close())
    assert [item.duration_ns for item in made] == pytest.approx(
        [250 * SECOND_NS // 15, 250 * SECOND_NS // 15, 100 * SECOND_NS // 15], abs=2
    )
    for item in made:
        assert packets(spool.folder / item.name, "v")[0]["flags"].startswith("K")
        assert decode_errors(spool.folder / item.name) == ""
    whole = joined(spool.folder, made)
    assert decode_errors(whole) == ""
    assert [unit.removeprefix(ACCESS_UNIT_DELIMITER) for unit in access_units(whole)] == [item.data for item in pictures]
    times = [float(packet["pts_time"]) for packet in packets(whole, "v")]
    assert times[0] == pytest.approx(10 - 0.003, abs=2e-5)
    assert [later - earlier for earlier, later in pairwise(times)] == pytest.approx([1 / 15] * 599, abs=2e-5)


def test_every_slice_plays_alone_when_the_sender_sends_parameter_sets_once(tmp_path: Path) -> None:
    shelved, spool = shelf(tmp_path / "spool")
    output = VideoTrackOutput(shelved, 7)
    pictures = video("h264", 600, gop=50)
    coded = pictures[0].data.index(b"\0\0\1\x65")
    head = pictures[0].data[: pictures[0].data.index(b"\0\0\1\x06") if b"\0\0\1\x06" in pictures[0].data[:coded] else coded]
    bare = [pictures[0], *(Encoded(item.data.replace(head, b""), item.time_ns, item.keyframe) for item in pictures[1:])]
    assert sum(len(item.data) for item in bare) < sum(len(item.data) for item in pictures)
    made = slices(write(output, "h264", bare) + output.close())
    assert len(made) == 3
    for item in made:
        assert decode_errors(spool.folder / item.name) == ""


def test_reordered_pictures(tmp_path: Path) -> None:
    shelved, spool = shelf(tmp_path / "spool")
    output = VideoTrackOutput(shelved, 7)
    sent = video("h264", 150, b_frames=2)
    made = slices(write(output, "h264", sent) + output.close())
    path = spool.folder / made[0].name
    with av.open(str(path)) as container:
        assert len(list(container.decode(video=0))) == 150
    seen = [(float(packet["pts_time"]), float(packet["dts_time"])) for packet in packets(path, "v")]
    assert any(later < earlier for (earlier, _), (later, _) in pairwise(seen))  # there are B-frames
    assert all(later > earlier for (_, earlier), (_, later) in pairwise(seen))
    assert all(dts <= pts for pts, dts in seen)
    assert [pts - 10 for pts, _ in seen[8:]] == pytest.approx([item.time_ns / SECOND_NS for item in sent[8:]], abs=2e-5)


@pytest.mark.parametrize("codec", ["vp8", "vp9"])
def test_webm_slices(tmp_path: Path, codec: Literal["vp8", "vp9"]) -> None:
    shelved, spool = shelf(tmp_path / "spool")
    output = VideoTrackOutput(shelved, 7)
    pictures = video(codec, 400, gop=50)
    made = slices(write(output, codec, pictures, shift_ns=100 * SECOND_NS) + output.close())
    assert [item.duration_ns for item in made] == pytest.approx([250 * SECOND_NS // 15, 150 * SECOND_NS // 15], abs=2)
    assert [unit for item in made for unit in access_units(spool.folder / item.name)] == [item.data for item in pictures]
    for item in made:
        path = spool.folder / item.name
        assert path.suffix == ".webm"
        assert decode_errors(path) == ""
        seen = packets(path, "v")
        assert float(seen[0]["pts_time"]) == 0
        assert seen[0]["flags"].startswith("K")
        assert (streams(path)[codec]["width"], streams(path)[codec]["height"]) == ("160", "120")
        with av.open(str(path)) as container:
            assert (container.duration or 0) / 1e6 == pytest.approx(item.duration_ns / SECOND_NS, abs=0.002)


def test_sound_and_picture_share_one_timeline(tmp_path: Path) -> None:
    shelved, spool = shelf(tmp_path / "spool")
    picture, sounds = VideoTrackOutput(shelved, 7), AudioTrackOutput(shelved, 7)
    seen = slices(write(picture, "h264", video("h264", 60)) + picture.close())
    products: list[Product] = []
    for item in aac(900):
        products += sounds.write(item.data, item.time_ns)
    heard = slices(products + sounds.close())
    assert [item.sequence for item in (*seen, *heard)] == [0, 1, 2]
    whole = joined(spool.folder, heard)
    assert decode_errors(whole) == ""
    assert audio_frames(whole) == b"".join(item.data for item in aac(900))
    first_picture = float(packets(spool.folder / seen[0].name, "v")[0]["pts_time"])
    first_sound = float(packets(whole, "a")[0]["pts_time"])
    assert first_picture - first_sound == pytest.approx(1024 / 48000, abs=2e-5)


def test_opus_in_webm_decodes(tmp_path: Path) -> None:
    encoder = av.AudioCodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format, encoder.bit_rate = 48_000, "stereo", "flt", 64_000
    sent = []
    for _ in range(100):
        chunk = av.AudioFrame.from_ndarray(np.zeros((1, 1920), np.float32), format="flt", layout="stereo")
        chunk.sample_rate = 48_000
        sent += [bytes(packet) for packet in encoder.encode(chunk)]
    file = WebmFile(tmp_path / "sound.webm", "opus")
    for number, data in enumerate(sent):
        file.write(data, number * 20_000_000, keyframe=True, duration_ns=20_000_000)
    file.close()
    assert decode_errors(tmp_path / "sound.webm") == ""
    with av.open(str(tmp_path / "sound.webm")) as container:
        assert [bytes(packet) for packet in container.demux() if packet.size] == sent
        assert container.streams.audio[0].codec_context.extradata is not None


WRITER = """
import sys, time
from pathlib import Path
from recorder.outputs.track import VideoTrackOutput
from tests.integration.test_outputs_track import write
from tests.outputs_media import shelf, video

output = VideoTrackOutput(shelf(Path(sys.argv[1]))[0], 7)
write(output, "vp8", video("vp8", 105))
print("written", flush=True)
time.sleep(60)
"""


def test_a_killed_writer_leaves_all_but_the_last_second_of_webm(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen((sys.executable, "-c", WRITER, str(tmp_path / "spool")), stdout=subprocess.PIPE, cwd=root) as process:
        assert process.stdout
        assert process.stdout.readline() == b"written\n"
        process.kill()
    (path,) = (tmp_path / "spool" / "partial").glob("*.webm")
    assert float(packets(path, "v")[-1]["pts_time"]) > 7 - 1.2
