"""What screenshots of one participant cost beside the rest of a recording: decoding, compression and the file."""

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from recorder.spec import RecordingSpec, Snapshots
from tests.bench import Result
from tests.integration.media import SECOND, Browser
from tests.integration.straight_line import Recorded

SECONDS = 20
CASES = [  # VP8, size, interval in seconds, whether the sender answers requests for keyframes
    (vp8, size, interval, answers)
    for size in ((640, 360), (1280, 720))
    for vp8 in (False, True)
    for interval, answers in ((1, True), (10, True), (10, False))
]


def snapshots() -> Iterable[Result]:
    for vp8, size, interval, answers in CASES:
        name = f"{'vp8' if vp8 else 'h264'}_{size[1]}p30_every_{interval}s{'' if answers else '_without_keyframes'}"
        yield Result(f"snapshots/{name}", round(_share(vp8, size, interval, answers), 2), "% of a core per participant")


def _share(vp8: bool, size: tuple[int, int], interval: int, answers: bool) -> float:
    spec = RecordingSpec(sid="a" * 32, app_id="app", channel="room", uid=1, mode="individual", files=False)
    with tempfile.TemporaryDirectory() as folder:
        recorded = Recorded(Path(folder) / "spool")
        pipeline = recorded.pipeline(spec.model_copy(update={"snapshots": Snapshots(interval_seconds=interval)}))
        sender = Browser(101, recorded.keyframes, deaf=not answers, vp8=vp8, size=size)
        spent = 0.0
        for number in range(SECONDS * sender.person.fps + 10):
            frame = sender.frame(number)
            begun = time.process_time()
            pipeline.take(frame, frame.time_ns)
            pipeline.advance(frame.time_ns)
            spent += time.process_time() - begun
        pipeline.close(SECONDS * SECOND)
        assert len(recorded.reports) == SECONDS // interval
    return 100 * spent / SECONDS


BENCHES = {"snapshots": snapshots}
