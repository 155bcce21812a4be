"""Removes SRTP where a datagram lies, without the copies that pylibsrtp makes.

Uses private members of pylibsrtp; its version is pinned in pyproject.toml, and tests/integration/test_rtp_tap.py fails when what is
used here changes.
"""

from typing import Final

import pylibsrtp
from pylibsrtp._binding import ffi, lib

_OK: Final = lib.srtp_err_status_ok


class Places:
    """The beginnings of datagrams in a block of memory, `size` bytes apart."""

    def __init__(self, block: bytearray, size: int) -> None:
        begin = ffi.from_buffer("char[]", block)
        self.pointers = [begin + start for start in range(0, len(block), size)]
        self._block = begin  # keeps the memory where it is


class Unprotector:
    """One direction of one connection."""

    def __init__(self, session: pylibsrtp.Session, places: Places) -> None:
        self._owner = session  # frees the session when it goes
        self._session = session._srtp[0]
        self._pointers = places.pointers
        self._size = ffi.new("int *")

    def rtp(self, number: int, size: int) -> int:
        """Take the protection off the RTP packet at place `number`; returns its size, or -1 when it is not authentic or came before."""
        self._size[0] = size
        failed: int = lib.srtp_unprotect(self._session, self._pointers[number], self._size)
        return -1 if failed != _OK else int(self._size[0])

    def rtcp(self, number: int, size: int) -> int:
        """The same for a compound RTCP packet."""
        self._size[0] = size
        failed: int = lib.srtp_unprotect_rtcp(self._session, self._pointers[number], self._size)
        return -1 if failed != _OK else int(self._size[0])
