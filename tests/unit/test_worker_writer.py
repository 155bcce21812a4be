"""What is handed to the writer is done in order, does not hold its caller up, and is bounded."""

import threading
from functools import partial

import pytest

from recorder.worker.writer import Writer


def test_jobs_are_done_in_order_while_the_caller_goes_on() -> None:
    writer, disk, done = Writer(), threading.Event(), list[int]()
    writer.start()
    writer.put(disk.wait)
    for number in range(100):
        writer.put(partial(done.append, number))
    assert done == []
    disk.set()
    writer.close()
    assert done == list(range(100))


def test_a_disk_that_is_too_far_behind_holds_the_caller_up() -> None:
    writer, disk, handed = Writer(behind_seconds=0.05), threading.Event(), threading.Event()
    writer.start()
    writer.put(disk.wait)

    def hand_in() -> None:
        writer.put(lambda: None)  # at once, or after the time is over
        threading.Event().wait(0.1)
        writer.put(lambda: None)
        handed.set()

    caller = threading.Thread(target=hand_in)
    caller.start()
    assert not handed.wait(0.4)
    disk.set()
    assert handed.wait(5)
    caller.join()
    writer.close()


def test_a_failure_reaches_whoever_hands_in_more_and_nothing_is_done_after_it() -> None:
    writer, done, failing = Writer(), list[int](), threading.Event()
    writer.start()

    def fail() -> None:
        raise OSError("disk")

    writer.put(lambda: failing.wait(5))
    writer.put(fail)
    writer.put(partial(done.append, 1))
    failing.set()
    with pytest.raises(OSError, match="disk"):
        writer.close()
    with pytest.raises(OSError, match="disk"):
        writer.put(partial(done.append, 2))
    assert done == []
