"""What can go wrong with a recording while all its parts work, and still be put right: the codes of its alarms, and when they fire.

Pure; times are nanoseconds of any clock that does not go back.
"""

from typing import Final

BLACK, FROZEN, SILENT, NO_MEDIA = 10001, 10002, 10003, 10004  # `warnCode`; 10005 is the agent's, 10006 is in `composite`
HOLD_NS: Final = 6_000_000_000  # so long before it is an alarm, and so long well before it can be one again


class Vigil:
    """Says once that something is wrong: when it has been for HOLD_NS."""

    def __init__(self) -> None:
        self._raised = False
        self._since_ns: int | None = None  # it is as it is now, unlike what was said last

    def see(self, wrong: bool, now_ns: int) -> bool:  # what is seen
        """Whether to raise the alarm now."""
        if wrong == self._raised:
            self._since_ns = None
            return False
        if self._since_ns is None:
            self._since_ns = now_ns
        if now_ns - self._since_ns < HOLD_NS:
            return False
        self._raised, self._since_ns = wrong, None
        return wrong
