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

    def __init__(self, sid: str, node: Node, events: EventLog, given: Callable[[RecordingSpec | None, RecordingSpec], object]) -> None:
        """`given` is called with the specification before and the one that an answer brought."""
        self.spec: RecordingSpec | None = None
        self.claimed = asyncio.Event()  # in this life of the agent
        self._sid = sid
        self._node = node
        self._events = events
        self._given = given
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

    async def renew_storage(self) -> Message:
        """The customer's new keys. The place is the old one, which the control plane has seen to."""
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                await self.claimed.wait()
                async with self._claiming:
                    claim = Claim(sid=self._sid, node=self._node.settings.agent.node, resume=self._events.epoch)
                    answer = await self._node.bus.claim(claim)
                    if isinstance(answer, Refused):
                        return answer
                    self._take(answer)
        except TimeoutError:
            return Refused(reason="stale")
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
