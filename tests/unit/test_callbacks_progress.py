"""How uploads get on: each minute, and when they stand still."""

from recorder.agent.progress import STALLED, UploadProgress
from recorder.protocol import EventBody, Finished, Progress, Slice, SliceCommitted, SliceStored, UploaderStarted, Warned


class Uploads:
    def __init__(self) -> None:
        self.now = 0.0
        self.lost: set[str] = set()
        self.progress = UploadProgress(lambda: self.lost, clock=lambda: self.now)
        self.progress.note(UploaderStarted())

    def commit(self, name: str, size: int = 1000) -> None:
        times = {"start_ms": 0, "start_ns": 0, "duration_ns": 0}
        self.progress.note(SliceCommitted(slice=Slice(name=name, playlist=None, epoch=1, sequence=0, size=size, sha256="", **times)))

    def store(self, name: str) -> None:
        self.progress.note(SliceStored(name=name))

    def until(self, seconds: float) -> list[EventBody]:
        told = []
        while self.now < seconds:
            self.now += 0.5
            told += self.progress.look()
        return told


def test_a_report_each_minute_until_the_end() -> None:
    uploads = Uploads()
    for number in range(4):
        uploads.commit(str(number))
        uploads.store(str(number))
        uploads.store(str(number))  # once more, as after a move from the backup store
    uploads.commit("4", size=1 << 30)
    assert uploads.until(130) == [Progress(stored=4, committed=5)] * 2
    uploads.progress.note(Finished(outcome="complete", reason="stopped", uploading="uploaded"))
    assert uploads.until(300) == []


def test_uploads_that_stand_still_are_an_alarm_in_time() -> None:
    uploads = Uploads()
    uploads.commit("a")
    uploads.until(2)
    uploads.store("a")
    assert uploads.until(20) == []  # nothing waits
    uploads.commit("b", size=500_000)
    assert uploads.until(27) == []
    (alarm,) = uploads.until(50)
    assert isinstance(alarm, Warned)
    assert (alarm.module, alarm.code) == (1, STALLED)
    uploads.store("b")
    uploads.commit("c")
    (again,) = uploads.until(58)
    assert isinstance(again, Warned)


def test_slow_uploads_that_get_on_are_no_alarm() -> None:
    uploads = Uploads()
    for number in range(20):
        uploads.commit(str(number))
    for number in range(20):
        assert not [body for body in uploads.until(5 * (number + 1)) if isinstance(body, Warned)]
        uploads.store(str(number))


def test_files_that_are_lost_are_not_waited_for() -> None:
    uploads = Uploads()
    uploads.commit("a")
    uploads.lost.add("a")
    assert uploads.until(50) == []
