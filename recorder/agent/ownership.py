"""What the control plane has given this node of one recording: an epoch, and the specification with its secrets."""

import asyncio
from collections.abc import Callable, Mapping

from recorder.agent.events import EventLog
from recorder.agent.node import Node
from recorder.agent.supervisor import COMMAND_SECONDS
from recorder.protocol import Claim, Claimed, Done, Message, Refused
from recorder.spec import RecordingSpec


class Abandoned(Exception):
    """The control plane says that this recording is not ours, or no more."""


class Ownership:
    """Claims the recording, again and again: for each worker, after the agent's restart, for new keys of the bucket."""

    def __init__(
        self,
        sid: str,
        node: Node,
        events: EventLog,
        given: Callable[[RecordingSpec | None, RecordingSpec], object],
        leave: Callable[[], bool],
    ) -> None:
        """`given` is called with the specification before and the one that an answer brought.

        `leave` has nothing more stored until `given` is called, or answers that something is stored, which then goes on.
        """
        self.spec: RecordingSpec | None = None
        self.claimed = asyncio.Event()  # in this life of the agent
        self._sid = sid
        self._node = node
        self._events = events
        self._given = given
        self._leave = leave
        self._moves: asyncio.Queue[asyncio.Future[Message]] = asyncio.Queue()
        self._changes: dict[str, object] = {}  # what the customer changed of it in this life
        self._claiming = asyncio.Lock()  # one at a time, so that an answer never comes with an epoch that is over

    async def claim(self) -> None:
        claim = Claim(sid=self._sid, node=self._node.settings.agent.node)
        async with self._claiming:
            answer = await self._events.claim(lambda: self._node.bus.claim(claim))
            self._take(answer)

    async def claim_again(self) -> None:
        """After the agent's own restart: the same epoch, to get the secrets back."""
        claim = Claim(sid=self._sid, node=self._node.settings.agent.node, resume=self._events.epoch)
        answer = await self._node.bus.claim(claim)
        if isinstance(answer, Refused) and answer.reason == "stale":
            await self.claim()  # killed after an epoch was given out and before it was noted: nobody uses that one
        else:
            self._take(answer)

    async def renew_storage(self, *, moves: bool) -> Message:
        """The customer's new keys. The place is the old one, which the control plane has seen to, unless it `moves`."""
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                await self.claimed.wait()
                if moves:
                    moved: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
                    self._moves.put_nowait(moved)
                    return await moved
                async with self._claiming:
                    claim = Claim(sid=self._sid, node=self._node.settings.agent.node, resume=self._events.epoch)
                    answer = await self._node.bus.claim(claim)
                    if isinstance(answer, Refused):
                        return answer
                    self._take(answer)
        except TimeoutError:
            return Refused(reason="stale")
        return Done()

    async def move(self) -> None:
        """Go where the customer wants the recording, as often as that is told. What was left is taken up again by an answer alone:
        else the control plane could have one place and this node another.
        """
        while True:
            moved = await self._moves.get()
            async with self._claiming:
                answer = await self._leave_and_claim()
            if not moved.done():  # nobody waits any more
                moved.set_result(answer)

    async def _leave_and_claim(self) -> Message:
        assert self.spec
        if not self._leave():
            return Refused(reason="bad_request", detail="a part of the recording is stored there")
        claim = Claim(sid=self._sid, node=self._node.settings.agent.node, resume=self._events.epoch, moves=True)
        answer = await self._node.bus.claim(claim)
        if isinstance(answer, Refused):
            self._given(self.spec, self.spec)
            return answer
        self._take(answer)
        return Done()

    def _take(self, answer: Claimed | Refused) -> None:
        if isinstance(answer, Refused):
            raise Abandoned(answer.reason)
        former = self.spec
        self.spec = RecordingSpec.model_validate(answer.spec).model_copy(update=self._changes)
        self._given(former, self.spec)
        self.claimed.set()

    def change(self, changes: Mapping[str, object]) -> None:
        """The customer has changed these fields; so has every specification to come."""
        self._changes |= changes
        if self.spec:
            self.spec = self.spec.model_copy(update=changes)
