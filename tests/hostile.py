"""Broken packets, made from good ones: bits turned, ends cut off, headers that lie, order and time that make no sense.

Everything is drawn from one seed, so that whatever is found can be had again.
"""

import random
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from recorder.frames import Codec, EncodedFrame, Kind
from recorder.rtp import packet as rtp
from recorder.rtp.jitter import MAX_SPAN
from recorder.rtp.receiver import MAX_STREAMS, Route, SessionReceiver

RTX, ORIENTATION = 120, 4
MS = 1_000_000
_CLOCK_HZ: dict[str, int] = {"opus": 48000, "pcmu": 8000, "pcma": 8000, "g722": 8000}


@dataclass(frozen=True, slots=True)
class Payload:
    """One RTP payload of a good stream."""

    data: bytes
    timestamp: int
    marker: bool


class Attack:
    """Mutated packets of all these streams against one receiver. `check` holds after every packet, however many there were."""

    def __init__(self, streams: Mapping[Codec, list[Payload]], seed: int) -> None:
        self.frames: list[EncodedFrame] = []
        self._dice = random.Random(seed)
        self._streams = list(streams.items())
        self._sent = dict.fromkeys(streams, 0)
        self._sequences: dict[Kind, int] = {"audio": 0, "video": 0}
        self._current = self._streams[0]
        self._types = {codec: 96 + number for number, (codec, _) in enumerate(self._streams)}
        self._now_ns = 0
        self._recent: list[bytes] = []
        self.receiver = SessionReceiver(
            7,
            routes={number: Route(_kind(codec), codec, _CLOCK_HZ.get(codec, 90000)) for codec, number in self._types.items()},
            retransmissions={RTX: next((number for codec, number in self._types.items() if _kind(codec) == "video"), 96)},
            orientation_id=ORIENTATION,
            on_frame=self.frames.append,
            patience_ns=500 * MS,
            zero_ns=0,
        )

    def run(self, count: int) -> None:
        """Send so many packets, RTCP among them, with ticks in between."""
        dice = self._dice
        intensity = 0.0
        for number in range(count):
            self._now_ns += dice.choice((0, 0, MS, 20 * MS))
            if number % 250 == 0:
                intensity = dice.choice((0.003, 0.05, 0.5))  # the harder, the less of what is broken gets past the headers
            if number % 16 == 0:
                self.receiver.control(self._mutated(self._report()), self._now_ns)
            data = self._packet()
            self._recent = [*self._recent[-15:], data]
            if dice.random() < intensity / 4:
                data = dice.choice(self._recent)  # again, or late
            self.receiver.packet(self._mutated(data) if dice.random() < intensity else data, self._now_ns)
            if number % 8 == 0:
                self.receiver.tick(self._now_ns)
        self.receiver.flush()

    def check(self) -> None:
        """Nothing has grown without bound, and nothing but access units of what was negotiated came out."""
        assert len(self.receiver._by_ssrc) + len(self.receiver._retired) <= MAX_STREAMS + 2
        for stream in self.receiver._by_ssrc.values():
            assert len(stream.jitter._held) <= MAX_SPAN
            assert len(stream.jitter._missing) <= MAX_SPAN
        for frame in self.frames:
            assert frame.payload
            assert frame.codec in self._sent
            assert max(frame.width, frame.height) <= 4096
            assert frame.rotation in (0, 90, 180, 270)

    def _packet(self) -> bytes:
        """The next packet of one of the streams, good as it is."""
        dice = self._dice
        if dice.random() < 0.005:  # else the same codec goes on for a while
            self._current = dice.choice(self._streams)
        codec, payloads = self._current
        number = self._sequences[_kind(codec)]
        self._sequences[_kind(codec)] += 1
        turns, index = divmod(self._sent[codec], len(payloads))
        self._sent[codec] += 1
        payload = payloads[index]
        timestamp = payload.timestamp + turns * (payloads[-1].timestamp + 3000)
        ssrc = 1 if _kind(codec) == "audio" else 2
        kind, data, extension = self._types[codec], payload.data, b""
        if dice.random() < 0.01:
            kind, data, ssrc = RTX, struct.pack("!H", number & 0xFFFF) + data, 3
        if dice.random() < 0.1:
            extension = struct.pack("!HHBBH", rtp.ONE_BYTE_EXTENSIONS, 1, ORIENTATION << 4, dice.randrange(256), 0)
        first = 0x90 if extension else 0x80
        return struct.pack("!BBHII", first, payload.marker << 7 | kind, number & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc) + extension + data

    def _report(self) -> bytes:
        dice = self._dice
        report = struct.pack("!BBHIQIII", 0x80, rtp.SR, 6, dice.choice((1, 2, 9)), dice.getrandbits(64), dice.getrandbits(32), 1, 2)
        bye = struct.pack("!BBHI", 0x81, rtp.BYE, 1, dice.choice((1, 2)))
        return report + bye if dice.random() < 0.1 else report

    def _mutated(self, data: bytes) -> bytes:
        dice = self._dice
        broken = bytearray(data)
        for _ in range(dice.choice((1, 1, 1, 2, 5))):
            at = dice.randrange(len(broken)) if broken else 0
            match dice.randrange(9):
                case 0 if broken:
                    broken[at] ^= 1 << dice.randrange(8)
                case 1 if broken:
                    broken[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFF))
                case 2:
                    del broken[at:]
                case 3:
                    broken[at:at] = dice.randbytes(dice.randrange(1, 40))
                case 4 if len(broken) >= 12:
                    broken[dice.choice((0, 1))] = dice.randrange(256)  # version, padding, extension, CSRCs; marker and type
                case 5 if len(broken) >= 12:
                    broken[2:4] = dice.randbytes(2)  # sequence
                case 6 if len(broken) >= 12:
                    broken[4:8] = dice.randbytes(4)  # timestamp
                case 7 if len(broken) >= 12:
                    broken[8:12] = dice.randrange(1, 40).to_bytes(4, "big")  # ssrc
                case 8:
                    broken = broken[:12] + bytearray(dice.randbytes(dice.randrange(0, 60)))
                case _:
                    pass
        return bytes(broken)


def _kind(codec: Codec) -> Kind:
    return "audio" if codec in _CLOCK_HZ else "video"


def in_order(pictures: Iterable[list[bytes]], ticks: int) -> list[Payload]:
    """The payloads of one access unit after the other, `ticks` of the RTP clock apart."""

    def payloads() -> Iterator[Payload]:
        for number, parts in enumerate(pictures):
            for part in parts:
                yield Payload(part, number * ticks, part is parts[-1])

    return list(payloads())


def as_packets(payloads: Iterable[Payload], *, payload_type: int, ssrc: int = 1) -> Iterator[bytes]:
    """RTP packets with plain headers."""
    for number, payload in enumerate(payloads):
        yield struct.pack("!BBHII", 0x80, payload.marker << 7 | payload_type, number & 0xFFFF, payload.timestamp, ssrc) + payload.data
