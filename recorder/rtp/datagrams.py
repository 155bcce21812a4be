"""Reads everything that waits at a socket in one call, with the moments at which the kernel received it.

On 64-bit Linux this is recvmmsg(2) with SO_TIMESTAMPNS through ctypes: one system call for up to 64 datagrams, none to learn that
there is nothing more, no copy, and arrival times that do not depend on when the event loop came to read. Elsewhere it is recvfrom.
"""

import ctypes
import os
import socket
import struct
import sys
import time
from typing import Any, Final

COUNT: Final = 64  # datagrams a call
SIZE: Final = 2048  # bytes; longer ones are cut off, and then fail to authenticate

_TIMESTAMP: Final = 35  # SO_TIMESTAMPNS of <asm-generic/socket.h>, and the type of the control message that it brings
_NAME_BYTES: Final = 32  # of a socket address
_CONTROL_BYTES: Final = 64
_STAMP_OFFSET: Final = 16  # of the time in the control message: behind its length, level and type
_CLOCKS_NS: Final = 2_000_000  # by which wall and monotonic clock may seem to part: more is a step of the wall clock, or a pause here
_DISTRUST_NS: Final = 500_000_000  # after that: what waits in other sockets bears the old time
_OLDEST_NS: Final = 2_000_000_000  # of a stamp


class _IoVector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct mmsghdr of recvmmsg(2)."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_size", ctypes.c_uint),
        ("vectors", ctypes.POINTER(_IoVector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("padding", ctypes.c_int),  # of struct msghdr, which ends here
        ("size", ctypes.c_uint),
    )


class Datagrams:
    """The datagrams of one `read`, good until the next one: number `i` lies in `block` from `i * SIZE` on."""

    def __init__(self) -> None:
        self.block = bytearray(COUNT * SIZE)
        self.view = memoryview(self.block)
        self.sizes = [0] * COUNT
        self.arrivals_ns = [0] * COUNT  # of the monotonic clock
        self._addresses: list[Any] = [None] * COUNT

    def prepare(self, sock: socket.socket) -> None:
        """Call it once for every socket that will be read."""

    def read(self, sock: socket.socket) -> int:
        """How many datagrams were read; 0 when none waits.

        Raises:
            OSError: an error of an earlier send, or the socket is closed.
        """
        now = time.monotonic_ns()
        for number in range(COUNT):
            start = number * SIZE
            try:
                size, self._addresses[number] = sock.recvfrom_into(self.view[start : start + SIZE], SIZE)
            except (BlockingIOError, InterruptedError):
                return number
            self.sizes[number], self.arrivals_ns[number] = size, now
        return COUNT

    def address(self, number: int) -> Any:
        """Where a datagram came from, as the socket module has it."""
        return self._addresses[number]


class _Batch(Datagrams):
    """By recvmmsg."""

    def __init__(self) -> None:
        super().__init__()
        self._names = bytearray(COUNT * _NAME_BYTES)
        self._control = bytearray(COUNT * _CONTROL_BYTES)
        self._vectors = (_IoVector * COUNT)()
        self._messages = (_Message * COUNT)()
        block, names, control = (_address_of(buffer) for buffer in (self.block, self._names, self._control))
        for number in range(COUNT):
            self._vectors[number] = _IoVector(block + number * SIZE, SIZE)
            message = self._messages[number]
            message.name, message.name_size = names + number * _NAME_BYTES, _NAME_BYTES
            message.vectors, message.vector_count = ctypes.pointer(self._vectors[number]), 1
            message.control, message.control_size = control + number * _CONTROL_BYTES, _CONTROL_BYTES
        self._headers = memoryview(self._messages).cast("B")
        self._fresh = bytes(self._headers)  # the kernel writes lengths over those it was given
        self._used = 0
        self._offset_ns = time.monotonic_ns() - time.time_ns()  # monotonic minus wall clock
        self._distrusted_until_ns = 0
        self._words = self._headers.cast("I")
        self._size_word, self._words_each = _Message.size.offset // 4, ctypes.sizeof(_Message) // 4
        self._stamps = memoryview(self._control).cast("q")
        # PyDLL keeps the interpreter's lock: the call never waits, and giving the lock away could cost a switch interval.
        self._recvmmsg = ctypes.PyDLL(None, use_errno=True).recvmmsg
        self._recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)

    def prepare(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, _TIMESTAMP, 1)

    def read(self, sock: socket.socket) -> int:
        used = self._used * ctypes.sizeof(_Message)
        self._headers[:used] = self._fresh[:used]
        count: int = self._recvmmsg(sock.fileno(), ctypes.addressof(self._messages), COUNT, socket.MSG_DONTWAIT, None)
        if count < 0:
            self._used = 0
            number = ctypes.get_errno()
            if number in (socket.EAGAIN, socket.EWOULDBLOCK):
                return 0
            raise OSError(number, os.strerror(number))
        self._used = count
        now, offset = self._now()
        word, stamp = self._size_word, _STAMP_OFFSET // 8
        for number in range(count):
            self.sizes[number] = self._words[word]
            arrival = self._stamps[stamp] * 1_000_000_000 + self._stamps[stamp + 1] + offset
            self.arrivals_ns[number] = arrival if now - _OLDEST_NS < arrival < now else now
            word += self._words_each
            stamp += _CONTROL_BYTES // 8
        return count

    def _now(self) -> tuple[int, int]:
        """The monotonic clock, and what makes the kernel's stamps, of the wall clock, times of it; 0 while they tell nothing."""
        wall, now = time.time_ns(), time.monotonic_ns()  # in this order: a pause in between makes arrivals late, not early
        if abs(now - wall - self._offset_ns) > _CLOCKS_NS:
            self._offset_ns = now - wall
            self._distrusted_until_ns = now + _DISTRUST_NS
        return now, self._offset_ns if now >= self._distrusted_until_ns else 0

    def address(self, number: int) -> Any:
        name = self._names[number * _NAME_BYTES : (number + 1) * _NAME_BYTES]
        (family,) = struct.unpack_from("=H", name)
        if family == socket.AF_INET:
            return socket.inet_ntop(socket.AF_INET, name[4:8]), int.from_bytes(name[2:4], "big")
        flow, scope = int.from_bytes(name[4:8], "big"), int.from_bytes(name[24:28], sys.byteorder)
        return socket.inet_ntop(socket.AF_INET6, name[8:24]), int.from_bytes(name[2:4], "big"), flow, scope


def _address_of(buffer: bytearray) -> int:
    return ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer))


def create() -> Datagrams:
    """The fastest way to read that this machine has."""
    if sys.platform == "linux" and struct.calcsize("P") == 8:
        return _Batch()
    return Datagrams()
