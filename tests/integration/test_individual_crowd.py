"""As many people as the individual mode records: 49 are heard, 32 of them seen; each gets files of its own, with every frame."""

from pathlib import Path

import av
import pytest

from recorder.frames import Track
from recorder.outputs.names import Names
from recorder.spec import RecordingSpec
from recorder.tools.replay import replay
from tests.corpus import Scenario, write
from tests.corpus_senders import Picture, Sender

HEARD, SEEN, SECONDS, FPS = 49, 32, 4, 15
SPEC = RecordingSpec(sid="a" * 32, app_id="app", channel="room", uid=900, mode="individual")


@pytest.mark.timeout(180)  # the first time the media is encoded
def test_a_crowd_is_recorded_one_by_one(tmp_path: Path) -> None:
    picture = (Picture(codec="h264", width=96, height=64),)
    senders = tuple(Sender(101 + number, picture if number < SEEN else (), fps=FPS, bitrate_kbps=50) for number in range(HEARD))
    replayed = replay(write(Scenario("crowd", "", senders, seconds=SECONDS), tmp_path / "capture"), tmp_path / "out", SPEC)
    names = Names(SPEC.sid, SPEC.channel)
    heard = {names.track_playlist(Track(sender.uid, "audio")) for sender in senders}
    seen = {names.track_playlist(Track(sender.uid, "video")) for sender in senders if sender.pictures}
    assert set(replayed.playlists()) == heard | seen
    for playlist, slices in replayed.playlists().items():
        assert sum(item.duration_ns for item in slices) / 1e9 == pytest.approx(SECONDS, abs=0.1)
        if playlist in seen:
            assert sum(_packets(replayed.folder / item.name) for item in slices) == SECONDS * FPS


def _packets(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for packet in container.demux() if packet.size)
