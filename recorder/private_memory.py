"""Keeps the memory of this process from others of the same user, such as the helper that decodes strangers' images."""

import ctypes
import sys
from typing import Final

_PR_SET_DUMPABLE: Final = 4


def hide_memory() -> None:
    """No core file, no debugger and no reading by others but root, until this process starts another program: prctl(2)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)
