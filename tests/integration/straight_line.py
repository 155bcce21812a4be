"""A pipeline under a virtual clock for tests: what people send and do goes in, what was reported and committed is kept."""

from pathlib import Path

from recorder.frames import Track
from recorder.protocol import EventBody, Slice, SliceCommitted
from recorder.settings import Recording
from recorder.spec import RecordingSpec
from recorder.worker.pipeline import Joined, Left, Pipeline, Started, Stopped, Surroundings, create
from storage.spool import RecordingSpool
from tests.integration.media import SECOND, Person

LATENCY_NS = 100_000_000


class Recorded:
    def __init__(self, folder: Path) -> None:
        self.spool = RecordingSpool(folder)
        self.reports: list[EventBody] = []
        self.keyframes: list[Track] = []

    def pipeline(self, spec: RecordingSpec, slice_seconds: float = 4, **others: object) -> Pipeline:
        return create(self.around(spec, slice_seconds, **others))

    def around(self, spec: RecordingSpec, slice_seconds: float = 4, **others: object) -> Surroundings:
        latency_ms = LATENCY_NS // 1_000_000
        values = {"latency_ms": latency_ms, "jitter_ms": latency_ms, "slice_seconds": slice_seconds, **others}
        settings = Recording.model_validate(values)
        return Surroundings(spec, settings, self.spool, 0, 1_700_000_000 * SECOND, self.reports.append, self.keyframes.append)

    @property
    def slices(self) -> list[Slice]:
        return [report.slice for report in self.reports if isinstance(report, SliceCommitted) and report.slice.playlist]

    def path(self, item: Slice) -> Path:
        return self.spool.file(item.name)

    def joined(self, folder: Path) -> Path:
        """All slices of the list as one file."""
        whole = folder / "whole.ts"
        whole.write_bytes(b"".join(self.path(item).read_bytes() for item in self.slices))
        return whole


def record(pipeline: Pipeline, people: list[Person], until: float) -> None:
    """Play what `people` send and do, each frame arriving 20 ms after its capture."""
    items: list[tuple[int, object]] = []
    for person in people:
        start, end = round(person.start * SECOND), round(person.end * SECOND)
        tracks = [Track(person.uid, kind) for kind, sent in (("video", person.codec), ("audio", person.sound)) if sent]  # type: ignore[arg-type]
        items += [(start, Joined(person.uid))] + [(start, Started(track)) for track in tracks]
        items += [(frame.time_ns + 20_000_000, frame) for frame in person.frames()]
        if person.end < until:
            items += [(end, Stopped(track)) for track in tracks] + [(end, Left(person.uid))]
    now = 0
    for now, item in sorted(items, key=lambda pair: pair[0]):
        pipeline.take(item, now)  # type: ignore[arg-type]
        pipeline.advance(now)
    pipeline.close(round(until * SECOND))
