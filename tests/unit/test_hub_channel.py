"""Who is in a channel, and who is told."""

import pytest

from recorder.hub import messages
from recorder.hub.channel import Channel, UidTaken, Watcher
from recorder.hub.messages import CLOSE_REPLACED, CLOSE_TOO_SLOW, Changed, Joined, Left, Participant, Roster


class Somebody:
    def __init__(self, uid: int) -> None:
        self.uid = uid
        self.muted = False
        self.ended: list[str] = []

    def participant(self) -> Participant:
        return Participant(uid=self.uid, audio="opus", audio_muted=self.muted)

    def end(self, reason: str) -> None:
        self.ended.append(reason)


async def told(watcher: Watcher, count: int) -> list[messages.Message | int]:
    found = [await watcher.next() for _ in range(count)]
    return [messages.parse(item) if isinstance(item, str) else item for item in found]


async def test_watcher_is_told_of_everything() -> None:
    channel, early, late = Channel("c"), Somebody(1), Somebody(2)
    channel.join(early)
    watcher = channel.watch(9)
    channel.join(late)
    early.muted = True
    channel.changed(early)
    channel.leave(late)
    assert await told(watcher, 4) == [
        Roster(participants=(Participant(uid=1, audio="opus"),)),
        Joined(participant=Participant(uid=2, audio="opus")),
        Changed(participant=Participant(uid=1, audio="opus", audio_muted=True)),
        Left(participant=Participant(uid=2, audio="opus")),
    ]


async def test_later_publisher_replaces_the_earlier_one() -> None:
    channel, first, second = Channel("c"), Somebody(1), Somebody(1)
    channel.join(first)
    watcher = channel.watch(9)
    channel.join(second)
    assert len(first.ended) == 1
    assert channel.publisher(1) is second
    channel.changed(first)
    channel.leave(first)  # its session ends later: it must not take the new one with it
    assert channel.publisher(1) is second
    assert [type(message).__name__ for message in await told(watcher, 3)] == ["Roster", "Left", "Joined"]


async def test_second_recorder_with_the_same_uid_replaces_the_first() -> None:
    channel = Channel("c")
    first, second = channel.watch(9), channel.watch(9)
    channel.unwatch(first)
    channel.join(Somebody(1))
    assert (await told(first, 2))[1] == CLOSE_REPLACED
    assert [type(message).__name__ for message in await told(second, 2)] == ["Roster", "Joined"]


async def test_publisher_with_the_recorders_uid_replaces_it() -> None:
    channel = Channel("c")
    watcher = channel.watch(9)
    channel.join(Somebody(9))
    assert (await told(watcher, 2))[1] == CLOSE_REPLACED
    with pytest.raises(UidTaken):
        channel.watch(9)


async def test_client_that_does_not_read_is_closed() -> None:
    channel = Channel("c")
    watcher = channel.watch(9)
    somebody = Somebody(1)
    channel.join(somebody)
    for _ in range(1200):
        channel.changed(somebody)
    assert (await told(watcher, 1001))[-1] == CLOSE_TOO_SLOW
