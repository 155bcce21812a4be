"""The timeline file of recordings under a virtual clock: its gaps are those that ffprobe finds in the media."""

import json
from pathlib import Path
from typing import Any

import pytest

from recorder.frames import EncodedFrame, Track
from recorder.outputs import timeline_file
from recorder.outputs.timeline_file import Timeline
from recorder.protocol import FileOpened, Slice, SliceCommitted
from recorder.spec import Canvas, Layout, Mode, RecordingSpec
from recorder.worker.chronicle import Chronicle
from recorder.worker.pipeline import Joined, Left, Pipeline, Started, Stopped
from tests.integration.media import SECOND, Person
from tests.integration.straight_line import Recorded
from tests.packet_gaps import frame_times, gaps

SID = "a" * 32
VIDEO, AUDIO = Track(101, "video"), Track(101, "audio")
ZERO_NS = 1_700_000_000 * SECOND


def _spec(mode: Mode) -> RecordingSpec:
    spec = RecordingSpec(sid=SID, app_id="app", channel="room", uid=1, mode=mode)
    return spec.model_copy(update={"canvas": Canvas(width=320, height=180, fps=30), "layout": Layout(number=1)})


class Observed:
    """A pipeline and the chronicle beside it, as the media thread has them."""

    def __init__(self, folder: Path, mode: Mode) -> None:
        self.spec = _spec(mode)
        self.recorded = Recorded(folder)
        self.pipeline: Pipeline = self.recorded.pipeline(self.spec)
        self._chronicle = Chronicle(self.recorded.spool.notes, epoch=0, zero_utc_ns=ZERO_NS)

    def play(self, items: list[tuple[float, object]], *people: Person, until: float) -> None:
        timed = [(round(second * SECOND), item) for second, item in items]
        timed += [(frame.time_ns + 20_000_000, frame) for person in people for frame in person.frames()]
        for now_ns, item in sorted(timed, key=lambda pair: pair[0]):
            if not isinstance(item, EncodedFrame) or item.track.kind in ("video", "audio"):
                self._chronicle.observe(item, now_ns)  # type: ignore[arg-type]
                self.pipeline.take(item, now_ns)  # type: ignore[arg-type]
            self.pipeline.advance(now_ns)
        self.pipeline.close(round(until * SECOND))
        for report in self.recorded.reports:  # as the worker's journal has it; the slices are in it by their commit
            if isinstance(report, FileOpened):
                self.recorded.spool.append(report.model_dump(mode="json"))

    def timeline(self) -> Timeline:
        spool = self.recorded.spool
        timeline_file.write(spool, self.spec, epoch=0)
        name = f"{SID}_room_timeline.json"
        (record,) = [record for record in spool.records() if record.get("content") == "timeline"]
        committed = Slice.model_validate(record)
        assert (committed.name, committed.playlist, committed.start_ms) == (name, None, ZERO_NS // 1_000_000)
        return Timeline.model_validate_json(spool.file(name).read_bytes())

    def found(self, playlist: str, kind: str) -> list[tuple[float, float]]:
        """The gaps that ffprobe finds."""
        slices = [r.slice for r in self.recorded.reports if isinstance(r, SliceCommitted) and r.slice.playlist == playlist]
        return gaps(t for item in slices for t in frame_times(self.recorded.path(item), kind, start_ns=item.start_ns))


def _same(said: list[tuple[float, float]], found: list[tuple[float, float]]) -> None:
    assert len(said) == len(found)
    for mine, theirs in zip(said, found, strict=True):
        assert mine == pytest.approx(theirs, abs=1 / 30)


@pytest.mark.parametrize("codec", ["h264", "vp8"])
def test_gaps_of_an_individual_recording_are_those_of_its_media(tmp_path: Path, codec: Any) -> None:
    """A mute of 2 s, a path that is silent for 1.5 s in a slice, somebody who leaves for 3 s and comes back with another size."""
    at = Observed(tmp_path / "spool", "individual")
    first = Person(101, codec, end=3)
    at.play(
        [
            (0, Joined(101)),
            (0, Started(VIDEO)),
            (0, Started(AUDIO)),
            (3.02, Stopped(VIDEO)),
            (5, Started(VIDEO)),
            (9.1, Stopped(VIDEO)),
            (9.1, Stopped(AUDIO)),
            (9.1, Left(101)),
            (12, Joined(101)),
            (12, Started(VIDEO)),
            (12, Started(AUDIO)),
        ],
        first,
        Person(101, None, start=3, end=9),
        Person(101, codec, sound=False, start=5.5, end=6.5),  # a keyframe comes at 6
        Person(101, codec, sound=False, start=8, end=9),
        Person(101, codec, start=12, end=14, width=320, height=180),
        until=14.5,
    )
    timeline = at.timeline()
    video, audio = (next(one for one in timeline.media if one.track == kind) for kind in ("video", "audio"))
    said = [(gap.from_ms / 1000, gap.to_ms / 1000) for gap in video.gaps]
    _same(said, at.found(video.file, "video"))
    assert [gap.cause for gap in video.gaps] == ["stopped", "nothing_came", "stopped"]
    assert said == pytest.approx([pytest.approx(pair, abs=0.04) for pair in ((3, 6), (6.5, 8), (9, 12))])
    assert at.found(audio.file, "audio") == []
    assert audio.gaps == ()  # silence fills it
    assert [(event.type, event.uid, event.kind, event.at_ms) for event in timeline.events if event.type != "format"] == [
        ("joined", 101, None, 0),
        ("started", 101, "video", 0),
        ("started", 101, "audio", 0),
        ("stopped", 101, "video", 3020),
        ("started", 101, "video", 5000),
        ("stopped", 101, "video", 9100),
        ("stopped", 101, "audio", 9100),
        ("left", 101, None, 9100),
        ("joined", 101, None, 12_000),
        ("started", 101, "video", 12_000),
        ("started", 101, "audio", 12_000),
    ]
    formats = [(event.codec, event.width, event.height, event.rotation) for event in timeline.events if event.type == "format"]
    assert formats[-2:] in ([("opus", None, None, None), (codec, 320, 180, 0)], [(codec, 320, 180, 0), ("opus", None, None, None)])
    assert timeline.left_out.model_dump() == {"events": 0, "tracks": 0, "gaps": 0}


def test_a_composite_goes_on_whatever_people_do(tmp_path: Path) -> None:
    at = Observed(tmp_path / "spool", "mix")
    at.play(
        [(0, Joined(101)), (3.02, Stopped(VIDEO)), (5, Started(VIDEO)), (7.1, Left(101)), (8, Joined(101))],
        Person(101, end=3),
        Person(101, start=6, end=7),
        Person(101, start=8, end=10),
        until=10.5,
    )
    timeline = at.timeline()
    (media,) = timeline.media
    assert (media.track, media.uid, media.gaps) == ("audio_and_video", 0, ())
    assert at.found(media.file, "video") == []
    assert media.to_ms - media.from_ms == pytest.approx(10_500, abs=60)
    assert [event.type for event in timeline.events if event.type != "format"] == ["joined", "stopped", "started", "left", "joined"]


def test_only_what_is_known_stands_in_the_file(tmp_path: Path) -> None:
    at = Observed(tmp_path / "spool", "individual")
    at.play([(0, Joined(101))], Person(101, end=1), until=1)
    at.timeline()
    written = json.loads(at.recorded.spool.file(f"{SID}_room_timeline.json").read_bytes())
    assert written["events"][0] == {"at_ms": 0.0, "type": "joined", "uid": 101}
    assert list(written) == list(Timeline.model_fields)
