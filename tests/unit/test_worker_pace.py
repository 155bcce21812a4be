"""When fewer pictures are made, and when all again."""

from recorder.worker.pace import HOLD_NS, SECOND, Pace


class Machine:
    """Seconds of a recording that is so late at the end of each."""

    def __init__(self, fps: int) -> None:
        self.said: list[str] = []
        self.pace = Pace(fps, self.said.append)
        self.now = 0

    def run(self, *late_seconds: float) -> list[int]:
        steps = []
        for late in late_seconds:
            for _ in range(10):
                self.now += SECOND // 10
                self.pace.observe(round(late * SECOND), self.now)
            steps.append(self.pace.step)
        return steps


def test_a_machine_that_gets_later_makes_half_and_half_again() -> None:
    machine = Machine(30)
    assert machine.run(0, 0.6, 1.2, 1.9, 2.5, 3, 4, 5)[-1] == 8
    assert machine.said == ["15 of 30 pictures a second", "7.5 of 30 pictures a second", "3.75 of 30 pictures a second"]


def test_one_that_catches_up_after_a_stall_goes_on_with_all() -> None:
    machine = Machine(30)
    assert set(machine.run(0, 0, 8, 6, 4, 2, 0.4, 0)) == {1}
    assert machine.said == []


def test_being_late_for_a_moment_is_nothing() -> None:
    assert set(Machine(15).run(*[0.45] * 20, 0.8, 0, 0.8, 0)) == {1}


def test_it_goes_back_step_by_step_and_tries_less_often_when_that_was_too_much() -> None:
    hold = HOLD_NS // SECOND
    machine = Machine(30)
    machine.run(0, 1, 2, 3)
    down = machine.pace.step
    assert down == 4
    assert machine.run(*[0] * (hold + 1))[-1] == 2
    assert machine.run(*[0] * (hold + 1))[-1] == 1
    assert machine.run(1, 2)[-1] == 2
    assert machine.run(*[0] * (hold + 1))[-1] == 2
    assert machine.run(*[0] * hold)[-1] == 1


def test_few_pictures_stay_as_they_are() -> None:
    for fps, least in ((1, 1), (7, 2), (10, 2), (15, 4), (24, 8), (60, 16)):
        assert Machine(fps).run(*range(30))[-1] == least
