"""`merge` of one hour in H.264 and AAC, nothing of which has to be encoded: how many times faster than it was recorded."""

import itertools
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from recorder.frames import Track
from recorder.outputs.names import Names
from recorder.outputs.playlist import render
from recorder.protocol import Slice
from recorder.spec import RecordingSpec
from recorder.tools.offline.merge import merge
from recorder.tools.offline.options import Options
from recorder.tools.replay import replay
from tests.bench import Result
from tests.corpus import Scenario, write
from tests.corpus_senders import Picture, Sender

ROUNDS = 5
HOUR_SECONDS = 3600
_RECORDED_SECONDS = 32
_UID = 101
_SPEC = RecordingSpec(sid="b" * 32, app_id="app", channel="room", uid=900, mode="individual")
_NAMES = Names(_SPEC.sid, _SPEC.channel)


def _hour(folder: Path) -> None:
    """An hour of one participant, by repetition of some slices under later names."""
    sender = Sender(_UID, (Picture(codec="h264", width=640, height=360),), bitrate_kbps=500)
    capture = write(Scenario("hour", "", (sender,), seconds=_RECORDED_SECONDS, looped=True), folder / "capture")
    recorded = replay(capture, folder / "recorded", _SPEC)
    (folder / "hour").mkdir()
    for kind in ("audio", "video"):
        track = Track(_UID, kind)
        playlist = _NAMES.track_playlist(track)
        whole = recorded.playlists()[playlist][:-1]  # without the short rest
        start_ms, hour = whole[0].start_ms, list[Slice]()
        for item in itertools.cycle(whole):
            if (start_ms - whole[0].start_ms) / 1000 >= HOUR_SECONDS:
                break
            name = _NAMES.track_slice(track, start_ms, "ts")
            shutil.copy(recorded.folder / item.name, folder / "hour" / name)
            hour.append(item.model_copy(update={"name": name, "start_ms": start_ms}))
            start_ms += round(item.duration_ns / 1e6)
        (folder / "hour" / playlist).write_text(render(hour, ended=True, correct_extinf=False))


def merge_an_hour() -> Iterable[Result]:
    with tempfile.TemporaryDirectory() as folder:
        _hour(Path(folder))
        times = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            merge(Path(folder) / "hour", Options(mode=1))
            times.append(HOUR_SECONDS / (time.perf_counter() - started))
    yield Result("merge", round(statistics.median(times), 1), "x real time")


BENCHES = {"merge": merge_an_hour}
