"""One channel: who publishes, and who watches the roster."""

import asyncio
import logging
from typing import Final, Protocol

from recorder.hub.messages import CLOSE_REPLACED, CLOSE_TOO_SLOW, Changed, Joined, Left, Participant, Roster

log = logging.getLogger(__name__)

_UNREAD_LIMIT: Final = 1000  # messages of a roster that its client may leave unread
_WATCHERS_LIMIT: Final = 100


class UidTaken(Exception):
    """The uid publishes in this channel."""


class RosterFull(Exception):
    """The channel is watched by as many as it takes."""


class Member(Protocol):
    """A publisher, as the channel knows it."""

    uid: int

    def participant(self) -> Participant: ...

    def end(self, reason: str) -> None: ...


class Watcher:
    """One roster connection: the invisible presence of a recorder."""

    def __init__(self, uid: int, first: Roster) -> None:
        self.uid = uid
        self._unread: asyncio.Queue[str | int] = asyncio.Queue()
        self._closed = False
        self.tell(first)

    async def next(self) -> str | int:
        """The next message, or the code to close with."""
        return await self._unread.get()

    def tell(self, message: Roster | Joined | Left | Changed) -> None:
        if self._unread.qsize() >= _UNREAD_LIMIT:
            self.close(CLOSE_TOO_SLOW)
        elif not self._closed:
            self._unread.put_nowait(message.model_dump_json())

    def close(self, code: int) -> None:
        if not self._closed:
            self._closed = True
            self._unread.put_nowait(code)


class Channel:
    def __init__(self, name: str) -> None:
        self.name = name
        self._publishers: dict[int, Member] = {}
        self._watchers: dict[int, Watcher] = {}

    def publisher(self, uid: int) -> Member | None:
        return self._publishers.get(uid)

    def join(self, member: Member) -> None:
        """A publisher is connected; whoever has its uid makes room."""
        earlier = self._publishers.get(member.uid)
        if earlier:
            self.leave(earlier)
            earlier.end("replaced by a later session")
        watcher = self._watchers.pop(member.uid, None)
        if watcher:
            watcher.close(CLOSE_REPLACED)
        self._publishers[member.uid] = member
        log.info("participant joined", extra={"channel": self.name, "uid": member.uid})
        self._tell(Joined(participant=member.participant()))

    def leave(self, member: Member) -> None:
        if self._publishers.get(member.uid) is member:
            del self._publishers[member.uid]
            log.info("participant left", extra={"channel": self.name, "uid": member.uid})
            self._tell(Left(participant=member.participant()))

    def changed(self, member: Member) -> None:
        if self._publishers.get(member.uid) is member:
            self._tell(Changed(participant=member.participant()))

    def watch(self, uid: int) -> Watcher:
        """Be told of everybody in the channel from now on; an earlier watcher of the same uid is replaced.

        Raises:
            UidTaken: a publisher has the uid.
            RosterFull: there are too many watchers.
        """
        if uid in self._publishers:
            raise UidTaken
        earlier = self._watchers.get(uid)
        if earlier:
            earlier.close(CLOSE_REPLACED)
        elif len(self._watchers) >= _WATCHERS_LIMIT:
            raise RosterFull
        watcher = Watcher(uid, Roster(participants=tuple(member.participant() for member in self._publishers.values())))
        self._watchers[uid] = watcher
        return watcher

    def unwatch(self, watcher: Watcher) -> None:
        if self._watchers.get(watcher.uid) is watcher:
            del self._watchers[watcher.uid]

    def _tell(self, message: Joined | Left | Changed) -> None:
        for watcher in self._watchers.values():
            watcher.tell(message)
