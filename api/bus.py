"""The contract between the control plane and the nodes: offer a recording, command one that runs.

What nodes tell by themselves (claims, events) arrives at `api.ledger`.

    BusError
    ├── Unreachable
    └── NoAnswer
"""

from typing import Protocol

from recorder.protocol import Done, Load, Refused, RenewStorage, SetLayout, Stop, Subscribe

Command = Stop | Subscribe | SetLayout | RenewStorage


class BusError(Exception):
    """A node could not be asked."""


class Unreachable(BusError):
    """The node is not connected; it has not got the message."""


class NoAnswer(BusError):
    """The node may have got the message but did not answer in time."""


class Bus(Protocol):
    async def offer(self, sid: str, load: Load) -> bool:
        """Whether a node takes a recording of this load on.

        Raises:
            NoAnswer: a node may have taken it.
        """

    async def command(self, node: str, command: Command) -> Done | Refused:
        """Pass a command to the node that owns the recording.

        Raises:
            Unreachable, NoAnswer
        """
