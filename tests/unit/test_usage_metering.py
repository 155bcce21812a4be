"""The worker's reports: when they come, what is in them, and that a journal gives the last one back."""

from recorder.agent.reports import _bodies
from recorder.frames import EncodedFrame, Kind, Track
from recorder.protocol import Metered, UsedTime
from recorder.spec import RecordingSpec
from recorder.usage import Category
from recorder.worker.audience import Audience
from recorder.worker.metering import Metering
from recorder.worker.pipeline import Input

DAY_MS = 86_400_000
SPEC = RecordingSpec.model_validate({"sid": "a" * 32, "app_id": "app", "channel": "room", "uid": 900, "mode": "mix"})


class Room:
    """A worker's ear and meter under a clock that the test turns."""

    def __init__(self, **spec: object) -> None:
        self.now_ms = 0
        self.reports: list[Metered] = []
        wanted = RecordingSpec.model_validate(SPEC.model_dump() | spec)
        self.metering = Metering(wanted, 7, report_seconds=10, report=self.reports.append, now_ms=lambda: self.now_ms)
        self.audience = Audience(wanted, self, receive=lambda _wanted: None, on_lost=lambda _error: None, metering=self.metering)

    def put(self, item: Input) -> None:
        pass

    def hear(self, uid: int, kind: Kind = "video", *, seconds: int) -> None:
        """Frames every second, and a look at the clock every quarter."""
        for quarter in range(4 * seconds):
            if quarter % 4 == 0:
                self.audience.frame(EncodedFrame(Track(uid, kind), "vp8", b"", True, 0, 640, 360))
            self.now_ms += 250
            self.metering.tell_when_due()


def used(*times: tuple[str, Category, int]) -> tuple[UsedTime, ...]:
    return tuple(UsedTime(day=day, category=category, milliseconds=ms) for day, category, ms in times)


def test_reports_are_cumulative_and_come_in_time() -> None:
    room = Room()
    room.hear(1, seconds=5)  # not joined yet
    room.metering.begin()
    room.hear(1, "audio", seconds=1)
    room.hear(1, seconds=20)
    assert [report.used for report in room.reports] == [
        used(("1970-01-01", "audio", 1000), ("1970-01-01", "hd", 8000)),  # 10 s after the begin; the last frame came at 9 s
        used(("1970-01-01", "audio", 1000), ("1970-01-01", "hd", 18_000)),
    ]
    last = room.metering.end()
    assert last == Metered(epoch=7, used=used(("1970-01-01", "audio", 1000), ("1970-01-01", "hd", 20_000)))
    room.hear(1, seconds=20)
    assert (len(room.reports), room.metering.end()) == (2, None)


def test_who_is_not_subscribed_to_and_recordings_of_sound_alone_count_as_audio() -> None:
    for room in (
        Room(subscription={"video": {"kind": "except", "uids": [1]}}),
        Room(video=False),
    ):
        room.metering.begin()
        room.hear(1, seconds=9)
        last = room.metering.end()
        assert last
        assert last.used == used(("1970-01-01", "audio", 9000))


def test_running_reports_leave_out_days_that_are_over() -> None:
    room = Room()
    room.metering.begin()
    room.now_ms = 3 * DAY_MS + 10
    room.metering.tell_when_due()
    assert [time.day for time in room.reports[-1].used] == ["1970-01-03", "1970-01-04"]
    last = room.metering.end()
    assert last
    assert sum(time.milliseconds for time in last.used) == 3 * DAY_MS + 10


def test_screenshots_alone_count_as_such_besides() -> None:
    room = Room(files=False)
    room.metering.begin()
    room.hear(1, seconds=2)
    last = room.metering.end()
    assert last
    assert last.used == used(("1970-01-01", "hd", 2000), ("1970-01-01", "snapshot", 2000))


def test_the_last_report_is_found_in_the_journal() -> None:
    report = Metered(epoch=7, used=used(("1970-01-01", "hd", 2000)))
    assert list(_bodies([report.model_dump(mode="json"), {"type": "usage"}])) == [report]  # the other one makes no sense
