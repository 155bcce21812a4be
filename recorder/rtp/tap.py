"""The tap into aiortc: raw RTP and RTCP of a peer connection, without aiortc's senders, receivers and tracks.

aiortc does ICE, DTLS and the SRTP keys. From the moment DTLS is up, the sockets of the ICE connection are drained here on a
tick: one wake-up serves every packet that arrived since the last one, and RTP is told from STUN by its first byte
(RFC 7983) before aioice would parse it. This module, and beside it `negotiation.py`, use private members of aiortc and aioice; their
versions are pinned in pyproject.toml, and tests/integration/test_rtp_tap.py fails when what is used here changes.
"""

import asyncio
import contextlib
import logging
import math
import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable
from typing import Any, NamedTuple, cast

import aioice.ice
import aioice.stun
import pylibsrtp
from aiortc import InvalidStateError, RTCPeerConnection
from aiortc.sdp import SessionDescription

from recorder.frames import Kind
from recorder.rtp import datagrams
from recorder.rtp.datagrams import COUNT, SIZE, Datagrams
from recorder.rtp.negotiation import CodecParameters, Media
from recorder.rtp.packet import is_rtcp
from recorder.rtp.srtp import Places, Unprotector

log = logging.getLogger(__name__)

TICK_SECONDS = 0.01  # for who passes packets on
RECORDING_TICK_SECONDS = 0.1  # for who keeps them: default latency minus default patience; waking up costs as much as twenty packets …
SOUND_ALONE_TICK_SECONDS = 0.2  # … in a recording without pictures, which is made a tenth of a second later for that …
LEAST_TICK_SECONDS = 0.03  # … but sooner, down to this, when a socket was full, and for who misses a packet when its handler says
_WAITING_DATAGRAMS = 32  # of a socket on one tick are no reason to come sooner: they fill a third of Linux's default buffer
_RECEIVE_BUFFER_BYTES = 2 << 20  # for what comes between two ticks, and while the event loop is busy; net.core.rmem_max limits it
_DRAIN_LIMIT = 512  # datagrams of one socket on one tick: a flood of one sender must not starve the others

_MOVE_RETRIES = 3
_LAST_STUN_BYTE = 3  # of the first bytes, which tell protocols on one port apart (RFC 7983)

RtpHandler = Callable[[bytes, int], None]
OtherHandler = Callable[[bytes, Any], None]  # a datagram and where it came from
TickHandler = Callable[[int], float]  # time.monotonic_ns() → seconds after which to read and call again, at the latest


def _guard_sockets() -> None:
    """Let only STUN, and DTLS and media of addresses that ICE knows, reach aioice and aiortc; process-wide.

    Their ports are open to everybody. An empty datagram ends aiortc's DTLS transport, a made-up record its handshake, and a
    STUN attribute that is cut short escapes from aioice as an exception.
    """
    take = aioice.ice.StunProtocol.datagram_received

    def datagram_received(self: Any, data: bytes | str, addr: Any) -> None:
        if not isinstance(data, bytes) or not data:
            return
        if data[0] > _LAST_STUN_BYTE and addr[:2] not in _known_addresses(self.receiver):
            return
        with contextlib.suppress(struct.error):
            take(self, data, addr)

    aioice.ice.StunProtocol.datagram_received = datagram_received  # type: ignore[method-assign]  # aioice has no public hook


def _known_addresses(connection: Any) -> set[tuple[str, int]]:
    """Where an ICE connection has checks going to or had them coming from, the ones it has not yet looked at included."""
    pairs = (*connection._nominated.values(), *connection._check_list)
    return {pair.remote_addr for pair in pairs} | {address for _, address, _ in connection._early_checks}


_guard_sockets()


class _Socket(NamedTuple):
    """One socket of an ICE connection that is read here."""

    sock: socket.socket
    protocol: Any  # aioice's
    take_other: OtherHandler  # its STUN and DTLS


def _ignore(packet: bytes, arrival_ns: int) -> None:
    """What arrives before anybody listens."""


class MediaTap:
    """Raw media of one peer connection. aiortc's own RTP senders and receivers never start."""

    def __init__(self, pc: RTCPeerConnection, *, tick_seconds: float = TICK_SECONDS) -> None:
        self.tick_seconds = tick_seconds
        self.on_tick: TickHandler | None = None
        self._on_rtp: RtpHandler = _ignore
        self._on_rtcp: RtpHandler = _ignore
        self._pc = pc
        self._sockets: dict[int, _Socket] = {}  # by file descriptor
        self._ticker: _Ticker | None = None
        self._moving: asyncio.Task[None] | None = None
        self._dtls: Any = None
        self._receive: Any = None  # SRTP sessions, once DTLS is up
        self._send: Any = None
        self._connected = asyncio.Event()
        self.closed = asyncio.Event()
        self.packets_received = 0
        self.packets_rejected = 0  # SRTP authentication or replay
        self.packets_unsent = 0
        self._let_it_close_early(pc)
        for transceiver in pc.getTransceivers():
            self._silence(transceiver)
        pc.on("connectionstatechange", self._watch)
        pc.on("signalingstatechange", self._attach)
        self._attach()

    def listen(self, on_rtp: RtpHandler, on_rtcp: RtpHandler, on_tick: TickHandler | None = None) -> None:
        """Who gets the packets that arrive from now on; `on_tick` is called on every tick, after what has arrived was handled."""
        self._on_rtp, self._on_rtcp, self.on_tick = on_rtp, on_rtcp, on_tick

    async def connected(self, timeout: float) -> None:  # noqa: ASYNC109  # its end is a ConnectionError like the others
        """Wait until media can flow.

        Raises:
            ConnectionError: ICE or DTLS failed, or the time is over.
        """
        self._attach()
        waits = [asyncio.ensure_future(self._connected.wait()), asyncio.ensure_future(self.closed.wait())]
        try:
            await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self.closed.is_set() or not self._connected.is_set():
            raise ConnectionError("no connection to the peer" if self.closed.is_set() else f"no connection to the peer within {timeout} s")

    def send_rtp(self, packet: bytes) -> None:
        """Protect and send one RTP packet; dropped and counted when it can't be sent."""
        self._transmit(packet, rtcp=False)

    def send_rtcp(self, packet: bytes) -> None:
        """Protect and send one compound RTCP packet; dropped and counted when it can't be sent."""
        self._transmit(packet, rtcp=True)

    def media(self) -> list[Media]:
        """What was negotiated; call it when both descriptions are set."""
        remote = SessionDescription.parse(self._pc.remoteDescription.sdp)
        ssrcs = {m.rtp.muxId: tuple(s.ssrc for s in m.ssrc) for m in remote.media}
        return [
            Media(
                mid=transceiver.mid,
                kind=cast(Kind, transceiver.kind),
                direction=transceiver.currentDirection or "inactive",
                codecs=tuple(
                    CodecParameters(c.payloadType or 0, c.name.lower(), c.clockRate, c.channels or 0, dict(c.parameters))
                    for c in transceiver._codecs
                ),
                extensions={e.uri: e.id for e in transceiver._headerExtensions},
                ssrc=transceiver.sender._ssrc,
                remote_ssrcs=ssrcs.get(transceiver.mid, ()),
            )
            for transceiver in self._pc.getTransceivers()
            if transceiver.mid is not None
        ]

    async def close(self) -> None:
        """Close the peer connection too."""
        self._stop()
        await self._pc.close()

    def drain(self) -> None:
        """Read everything that has arrived since the last call."""
        for number in tuple(self._sockets):
            if number in self._sockets:  # what the one before received may have ended the connection
                self.drain_socket(number)

    def drain_socket(self, number: int) -> int:
        """Read what has arrived at one socket, up to a bound; `number` is its file descriptor. Returns how many datagrams that was."""
        assert self._ticker
        source = self._sockets[number]
        batch = self._ticker.batch
        total = 0
        for _ in range(_DRAIN_LIMIT // COUNT):
            try:
                count = batch.read(source.sock)
            except OSError:  # ICMP unreachable of an earlier send, or the socket was closed meanwhile
                if source.sock.fileno() < 0:
                    self._stop()
                break
            total += count
            self._sort(batch, count, source)
            if count < COUNT:
                break
        return total

    def _sort(self, batch: Datagrams, count: int, source: _Socket) -> None:
        """RTP, RTCP, and what is neither (RFC 7983)."""
        view, sizes, arrivals_ns, unprotector = batch.view, batch.sizes, batch.arrivals_ns, self._unprotector
        for number in range(count):
            size = sizes[number]
            if size < 2:
                continue
            start = number * SIZE
            first = view[start]
            if 128 <= first <= 191:
                self.packets_received += 1
                if 64 <= view[start + 1] & 0x7F < 96:  # RTCP (RFC 5761 section 4)
                    size, handler = unprotector.rtcp(number, size), self._on_rtcp
                    if size >= 0:
                        self._follow(source.protocol, batch.address(number))
                else:
                    size, handler = unprotector.rtp(number, size), self._on_rtp
                if size < 0:
                    self.packets_rejected += 1
                else:
                    handler(view[start : start + size].tobytes(), arrivals_ns[number])
            elif first <= _LAST_STUN_BYTE or 20 <= first <= 63:  # DTLS; nothing else belongs here
                source.take_other(view[start : start + size].tobytes(), batch.address(number))

    # ---- inside ----

    def _attach(self) -> None:
        """Follow the DTLS transport as soon as there is one; transceivers may appear with the remote description."""
        for transceiver in self._pc.getTransceivers():
            self._silence(transceiver)
            dtls = transceiver.receiver.transport
            if self._dtls is None and dtls is not None:
                self._dtls = dtls
                dtls.on("statechange", self._watch)

    @staticmethod
    def _silence(transceiver: Any) -> None:
        async def nothing(parameters: object) -> None:
            return None

        transceiver.sender.send = nothing
        transceiver.receiver.receive = nothing

    @staticmethod
    def _let_it_close_early(pc: Any) -> None:
        """aiortc connects in a task that nobody awaits: closed meanwhile, it would log an exception that was never retrieved."""
        connect = pc._RTCPeerConnection__connect

        async def connect_until_closed() -> None:
            with contextlib.suppress(InvalidStateError):
                await connect()

        pc._RTCPeerConnection__connect = connect_until_closed

    def _watch(self) -> None:
        state = self._dtls.state if self._dtls else "new"
        if state == "connected" and self._receive is None and not self.closed.is_set():
            self._take_over()
        elif state in ("closed", "failed") or self._pc.connectionState in ("closed", "failed"):
            self._stop()

    def _take_over(self) -> None:
        self._receive, self._send = self._dtls._rx_srtp, self._dtls._tx_srtp
        loop: Any = asyncio.get_running_loop()
        ticker = self._ticker = _Ticker.of(loop)
        self._unprotector = Unprotector(self._receive, ticker.places)
        for protocol in self._dtls.transport._connection._protocols:
            stun = protocol.datagram_received
            transport = protocol.transport
            sock = transport.get_extra_info("socket")
            if getattr(sock, "type", None) == socket.SOCK_DGRAM and hasattr(loop, "_remove_reader") and hasattr(transport, "_sock"):
                loop._remove_reader(sock.fileno())
                plain = transport._sock
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
                ticker.batch.prepare(plain)
                self._sockets[plain.fileno()] = _Socket(plain, protocol, stun)
            else:  # a relay, or another kind of event loop: datagrams still come one by one
                protocol.datagram_received = self._sorter(protocol, stun)
        ticker.add(self, self._sockets)
        self._connected.set()

    def _sorter(self, protocol: Any, stun: Callable[[bytes, Any], None]) -> Callable[[bytes, Any], None]:
        def datagram_received(data: bytes, address: Any) -> None:
            if data and 128 <= data[0] <= 191:
                self._unprotect(data, time.monotonic_ns(), protocol, address)
            else:
                stun(data, address)

        return datagram_received

    def _unprotect(self, data: bytes, arrival_ns: int, protocol: Any, address: Any) -> None:
        self.packets_received += 1
        try:
            if is_rtcp(data):
                plain, handler = self._receive.unprotect_rtcp(data), self._on_rtcp
                self._follow(protocol, address)
            else:
                plain, handler = self._receive.unprotect(data), self._on_rtp
        except (pylibsrtp.Error, ValueError):  # ValueError: longer than libsrtp's buffer
            self.packets_rejected += 1
            return
        handler(plain, arrival_ns)

    def _follow(self, protocol: Any, address: Any) -> None:
        """Notice that the peer sends from elsewhere, as it does when a NAT forgets it; `address` is that of a genuine RTCP packet."""
        pair = self._dtls.transport._connection._nominated.get(1)
        if pair and self._moving is None and pair.protocol is protocol and pair.remote_addr != address[:2]:  # IPv6 has four parts
            self._moving = asyncio.create_task(self._move(protocol, address[:2]))
            self._moving.add_done_callback(self._moved)

    async def _move(self, protocol: Any, address: tuple[str, int]) -> None:
        """Send to another address from now on, if it answers a check: genuine packets may be replayed from anywhere."""
        connection = self._dtls.transport._connection
        candidate = aioice.Candidate("moved", component=1, transport="udp", priority=0, host=address[0], port=address[1], type="prflx")
        pair = aioice.ice.CandidatePair(protocol, candidate)
        with contextlib.suppress(aioice.stun.TransactionError):
            request = connection.build_request(pair, nominate=False)
            key = connection.remote_password.encode()
            _, answered = await protocol.request(request, pair.remote_addr, integrity_key=key, retransmissions=_MOVE_RETRIES)
            if answered[:2] == address:
                connection._nominated[1] = pair
                log.info("the peer moved to another address")

    def _moved(self, task: asyncio.Task[None]) -> None:
        self._moving = None
        if not task.cancelled() and (error := task.exception()):
            log.error("the peer's new address could not be checked", exc_info=error)

    def _transmit(self, packet: bytes, *, rtcp: bool) -> None:
        pair = self._dtls.transport._connection._nominated.get(1) if self._send else None
        if pair is None:
            self.packets_unsent += 1
            return
        try:
            data = self._send.protect_rtcp(packet) if rtcp else self._send.protect(packet)
            pair.protocol.transport.sendto(data, pair.remote_addr)
        except (pylibsrtp.Error, OSError, ValueError):
            self.packets_unsent += 1

    def _stop(self) -> None:
        if not self.closed.is_set():
            self.closed.set()
            if self._ticker:
                self._ticker.remove(self, self._sockets)
            self._sockets.clear()
            if self._moving:
                self._moving.cancel()


class _Ticker:
    """One timer of an event loop that drains the sockets of all its taps, and between two rounds those of taps that miss a packet."""

    _of: dict[int, "_Ticker"] = {}  # noqa: RUF012  # by id of the event loop; gone with the last tap

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._taps: set[MediaTap] = set()
        self._owners: dict[int, MediaTap] = {}  # by file descriptor
        self._poll = select.poll()
        self.batch = datagrams.create()
        self.places = Places(self.batch.block, SIZE)
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: dict[MediaTap, float] = {}  # those that miss a packet, and for how many seconds
        self._counts: Counter[int] = Counter()  # datagrams in this round, by file descriptor
        self._begun = self._due = loop.time()  # of this round

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> "_Ticker":
        ticker = cls._of.get(id(loop))
        if ticker is None:
            ticker = cls._of[id(loop)] = cls(loop)
        return ticker

    def add(self, tap: MediaTap, numbers: Iterable[int]) -> None:
        self._taps.add(tap)
        for number in numbers:
            self._owners[number] = tap
            self._poll.register(number, select.POLLIN)
        if self._timer is None:
            self._timer = self._loop.call_later(TICK_SECONDS, self._tick)

    def remove(self, tap: MediaTap, numbers: Iterable[int]) -> None:
        self._taps.discard(tap)
        self._waiting.pop(tap, None)
        for number in numbers:
            if self._owners.get(number) is tap:  # else the socket was closed before, and its number belongs to another one now
                del self._owners[number]
                self._poll.unregister(number)
        if not self._taps:
            if self._timer:
                self._timer.cancel()
            self._timer = None
            self._of.pop(id(self._loop), None)

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time()
        ends = self._due - now < LEAST_TICK_SECONDS / 2  # of the round; what ends so soon is not worth a wake-up of its own
        self._drain(self._taps if ends else self._waiting)
        now_ns = time.monotonic_ns()
        for tap in tuple(self._taps if ends else self._waiting):
            wait = self._call(tap, now_ns)
            if wait < tap.tick_seconds and tap in self._taps:
                self._waiting[tap] = wait
            else:
                self._waiting.pop(tap, None)
        if ends:
            fullest = max([1, *self._counts.values()])
            pace = (now - self._begun) * _WAITING_DATAGRAMS / fullest
            wait = min(max(LEAST_TICK_SECONDS, pace), *(tap.tick_seconds for tap in self._taps), SOUND_ALONE_TICK_SECONDS)
            self._begun, self._due = now, now + wait
            self._counts.clear()
        if self._taps and self._timer is None:
            soon = max(TICK_SECONDS, min(self._waiting.values(), default=math.inf))
            self._timer = self._loop.call_later(min(self._due - now, soon), self._tick)

    def _drain(self, taps: Container[MediaTap]) -> None:
        for number, _ in self._poll.poll(0):
            tap = self._owners.get(number)  # None: closed by what another one has just received
            if tap and tap in taps:
                try:
                    self._counts[number] += tap.drain_socket(number)
                except Exception:  # a packet that breaks one session must not starve the others
                    log.exception("a packet could not be handled")

    @staticmethod
    def _call(tap: MediaTap, now_ns: int) -> float:
        try:
            return tap.on_tick(now_ns) if tap.on_tick else math.inf
        except Exception:  # the same
            log.exception("a session's timers failed")
            return math.inf
