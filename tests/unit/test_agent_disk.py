"""What is done as the disk of the spool fills up."""

from dataclasses import dataclass, field
from pathlib import Path

from recorder.agent.disk import Disk
from recorder.protocol import Reason
from storage import reserve
from storage.reserve import Reserve
from storage.spool import Spool


@dataclass
class _Recording:
    began_ms: int
    told: list[str] = field(default_factory=list)
    saves: bool = False

    def stop(self, reason: Reason) -> None:
        self.told.append(reason)

    def save_space(self, on: bool) -> None:
        self.saves = on


class _Spool(Spool):
    level = 0.5

    def fill(self) -> float:
        return self.level


def disk_of(tmp_path: Path) -> tuple[Disk, _Spool, list[_Recording]]:
    spool = _Spool(tmp_path)
    assert Reserve(tmp_path).make(4096)
    recordings = [_Recording(3), _Recording(9), _Recording(5)]
    return Disk(spool, lambda: [one for one in recordings if not one.told]), spool, recordings


def test_no_recording_is_taken_from_80_percent_on(tmp_path: Path) -> None:
    disk, spool, _ = disk_of(tmp_path)
    for level, refuses in ((0.5, False), (0.799, False), (0.8, True), (0.99, True)):
        spool.level = level
        assert bool(disk.refuses) == refuses


def test_rates_are_lowered_at_90_percent_and_until_it_is_below_80(tmp_path: Path) -> None:
    disk, spool, recordings = disk_of(tmp_path)
    for level, saves in ((0.85, False), (0.9, True), (0.85, True), (0.8, True), (0.79, False), (0.89, False)):
        spool.level = level
        disk.look()
        assert [one.saves for one in recordings] == [saves] * 3
    assert [one.told for one in recordings] == [[], [], []]


def test_the_newest_recording_ends_at_95_percent_and_another_with_each_further_percent(tmp_path: Path) -> None:
    disk, spool, recordings = disk_of(tmp_path)
    ends = []
    for level in (0.949, 0.95, 0.952, 0.955, 0.961, 0.96, 0.965, 0.93, 0.951):
        spool.level = level
        disk.look()
        ends.append([one.began_ms for one in recordings if one.told])
    assert ends == [[], [9], [9], [9], [9, 5], [9, 5], [9, 5], [9, 5], [3, 9, 5]]
    assert {reason for one in recordings for reason in one.told} == {"spool_full"}


def test_when_the_reserve_is_gone_all_end_and_it_is_made_again_when_there_is_room(tmp_path: Path) -> None:
    disk, spool, recordings = disk_of(tmp_path)
    disk.look()
    assert Reserve(tmp_path).release()  # by whoever found the disk full
    assert not Reserve(tmp_path).release()
    spool.level = 0.94
    disk.look()
    assert [one.told for one in recordings] == [["spool_full"]] * 3
    disk.look()
    assert not Reserve(tmp_path).is_there
    spool.level = 0.5
    disk.look()
    assert Reserve(tmp_path).is_there
    assert (tmp_path / ".reserve").stat().st_size == reserve.RESERVE_BYTES
    assert Spool(tmp_path).recordings() == []
