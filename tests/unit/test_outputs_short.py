"""The last breath of a recording: a slice of one frame is still a slice."""

from pathlib import Path

import numpy as np

from recorder.media.encode import AudioEncoder
from recorder.outputs.mux import TsFile
from recorder.tools import measure


def test_a_slice_of_one_frame_of_sound_is_recognised(tmp_path: Path) -> None:
    encoder = AudioEncoder(0)
    packets = encoder.encode(np.zeros((1, 1024), np.float32)) + encoder.flush()
    path = tmp_path / "short.ts"
    file = TsFile(path, video=False, audio="aac")
    file.write_audio(packets[0].data, 0)
    file.close()
    assert [stream.codec for stream in measure.probe(path).streams] == ["aac"]
    assert measure.decode_errors([path]) == []
