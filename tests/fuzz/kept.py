"""Inputs of the receive path that were worth keeping: each reaches code that no other one does (rows M1 and M2 of the faults).

    python -m tests.fuzz.kept [SECONDS]

looks for more, so many seconds for each entry, by mutating what is there and watching which lines follow which; and keeps of all the
fewest that reach everything. `make test` feeds what is kept in `kept.txt` to the same entries.
"""

import random
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final

import aioice.stun

from recorder.frames import Codec, EncodedFrame
from recorder.hub import feedback
from recorder.rtp import packet as rtp
from recorder.rtp.depacketisers import CODECS, MAX_UNIT_BYTES, create
from recorder.rtp.receiver import Route, SessionReceiver
from tests.good_streams import good_streams

KEPT: Final = Path(__file__).parent / "kept.txt"
MS: Final = 1_000_000
_MOST_PARTS, _PART_BYTES = 6, 127
_MOST_BYTES: Final = _MOST_PARTS * (_PART_BYTES + 1)
_WATCHED: Final = ("/recorder/rtp/", "/recorder/hub/feedback.py", "/recorder/media/timeline.py", "/aioice/stun.py")

Entry = Callable[[bytes], bool]  # whether anything of it was accepted; what it raises is a fault
Arcs = set[tuple[str, int, int]]  # file, and two lines that were run one after the other


# ---- entries -----------------------------------------------------------------------------------------------------


def _parts(data: bytes) -> Iterator[tuple[bytes, bool]]:
    """Several packets of one input, each with a flag: a byte of length and flag precedes each."""
    while data:
        size, flag = data[0] & 0x7F, data[0] >= 0x80
        yield data[1 : 1 + size], flag
        data = data[1 + size :]


def _joined(parts: list[tuple[bytes, bool]]) -> bytes:
    return b"".join(bytes((len(part[:_PART_BYTES]) | flag << 7,)) + part[:_PART_BYTES] for part, flag in parts)


def _depacketised(codec: Codec, data: bytes) -> bool:
    depacketiser = create(codec)
    units = 0
    for number, (payload, marker) in enumerate(_parts(data)):
        try:
            unit = depacketiser.push(payload, timestamp=number // 2, marker=marker)
        except ValueError:
            continue
        if unit:
            units += 1
            assert 0 < len(unit.payload) <= MAX_UNIT_BYTES
            assert min(unit.width, unit.height) >= 0
    return units > 0


def _headers(data: bytes) -> bool:
    header = rtp.parse_header(data)
    if header is None:
        return False
    assert 0 <= header.payload_offset <= header.payload_end <= len(data)
    rtp.extensions(data, header)
    return True


def _reports(data: bytes) -> bool:
    return len(rtp.parse_rtcp(data)) + len(feedback.parse(data)) > 0


def _session(data: bytes) -> bool:
    """RTP, or RTCP where the flag is set, 20 ms apart."""
    frames: list[EncodedFrame] = []
    receiver = SessionReceiver(
        7,
        routes={96: Route("audio", "opus", 48000), 97: Route("video", "vp8", 90000), 99: Route("video", "h264", 90000)},
        retransmissions={98: 97},
        orientation_id=4,
        on_frame=frames.append,
        patience_ns=50 * MS,
        zero_ns=0,
    )
    for number, (packet, is_rtcp) in enumerate(_parts(data)):
        (receiver.control if is_rtcp else receiver.packet)(packet, number * 20 * MS)
        receiver.tick(number * 20 * MS)
    receiver.flush()
    return bool(frames)


def _stun(data: bytes) -> bool:
    try:
        aioice.stun.parse_message(data)
    except (ValueError, struct.error):  # which the guard of our sockets and aioice count on
        return False
    return True


ENTRIES: Final[Mapping[str, Entry]] = {
    **{codec: partial(_depacketised, codec) for codec in sorted(CODECS)},  # type: ignore[arg-type]  # they are Codecs
    "rtp": _headers,
    "rtcp": _reports,
    "session": _session,
    "stun": _stun,
}


def kept() -> dict[str, list[bytes]]:
    """By the name of the entry."""
    found: dict[str, list[bytes]] = {name: [] for name in ENTRIES}
    for line in KEPT.read_text().splitlines():
        name, _, text = line.partition(" ")
        found[name].append(bytes.fromhex(text))
    return found


# ---- the search --------------------------------------------------------------------------------------------------


class _Watch:
    """Which lines follow which while an input is read."""

    def __init__(self) -> None:
        self._arcs: Arcs = set()

    def of(self, entry: Entry, data: bytes) -> Arcs:
        self._arcs = set()
        sys.settrace(self._call)
        try:
            entry(data)
        finally:
            sys.settrace(None)
        return self._arcs

    def _call(self, frame: FrameType, event: str, argument: object) -> Any:
        name = frame.f_code.co_filename
        if not any(part in name for part in _WATCHED):
            return None
        last = -frame.f_code.co_firstlineno

        def line(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal last
            self._arcs.add((name, last, frame.f_lineno))
            last = frame.f_lineno
            return line

        return line


def _seeds(name: str) -> list[bytes]:
    """Good inputs to begin with."""
    streams = good_streams()
    report = struct.pack("!BBHIQIII", 0x80, rtp.SR, 6, 1, 1 << 60, 960, 1, 2)
    if name in streams:
        payloads = [(payload.data, payload.marker) for payload in streams[name]]
        return [_joined(payloads[first : first + 3]) for first in range(0, len(payloads), 3)]
    if name == "rtcp":
        bye, lost = struct.pack("!BBHI", 0x81, rtp.BYE, 1, 1), rtp.nack(1, 2, [1, 2, 30])
        return [report + bye, rtp.picture_loss_indication(1, 2) + lost, report + lost]
    packets = []
    for codec, number in (("opus", 96), ("vp8", 97), ("h264", 99)):
        for sequence, payload in enumerate(streams[codec][:4]):  # type: ignore[index]  # the same
            head = struct.pack("!BBHII", 0x90, payload.marker << 7 | number, sequence, payload.timestamp, number)
            packets.append(head + struct.pack("!HHBBH", rtp.ONE_BYTE_EXTENSIONS, 1, 4 << 4, 1, 0) + payload.data)
    if name == "session":
        again = struct.pack("!BBHIIH", 0x80, 98, 9, 3000, 5, 1) + packets[5][20:]
        groups = [(*packets[first : first + 2], again) for first in range(0, len(packets), 2)]
        return [_joined([(packet, False) for packet in group] + [(report, True)]) for group in groups]
    if name == "stun":
        message = aioice.stun.Message(aioice.stun.Method.BINDING, aioice.stun.Class.REQUEST, b"x" * 12)
        message.attributes |= {"USERNAME": "a:b", "PRIORITY": 1, "XOR-MAPPED-ADDRESS": ("192.0.2.1", 9), "ERROR-CODE": (401, "no")}
        message.add_message_integrity(b"key")
        return [bytes(message)]
    return packets


def _mutated(data: bytes, others: list[bytes], dice: random.Random) -> bytes:
    broken = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 4))):
        at = dice.randrange(len(broken) + 1)
        match dice.randrange(7):
            case 0 if at < len(broken):
                broken[at] ^= 1 << dice.randrange(8)
            case 1 if at < len(broken):
                broken[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
            case 2:
                del broken[at : at + dice.randrange(1, 9)]
            case 3:
                broken[at:at] = dice.randbytes(dice.randrange(1, 9))
            case 4:
                broken[at:at] = broken[dice.randrange(len(broken) + 1) :][:40]
            case 5:
                other = dice.choice(others)
                broken[at:] = other[dice.randrange(len(other) + 1) :]
            case _:
                del broken[at:]
    return bytes(broken[:_MOST_BYTES])


def _search(entry: Entry, found: list[bytes], seconds: float, dice: random.Random) -> list[bytes]:
    """The fewest inputs that reach all that was reached, the shortest first."""
    watch = _Watch()
    reached = {data: watch.of(entry, data) for data in found}
    known: Arcs = set().union(*reached.values())
    pool = list(reached)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = _mutated(dice.choice(pool), pool, dice)
        arcs = watch.of(entry, data)
        if arcs - known:
            known |= arcs
            reached[data] = arcs
            pool.append(data)
    fewest: list[bytes] = []
    while known:
        best = max(reached, key=lambda data: (len(reached[data] & known), -len(data)))
        fewest.append(_shrunk(best, lambda data, needed=reached[best] & known: needed <= watch.of(entry, data)))  # type: ignore[misc]
        known -= reached[best]
    return sorted(fewest, key=lambda data: (len(data), data))


def _shrunk(data: bytes, serves: Callable[[bytes], bool]) -> bytes:
    """The input without what it can do without."""
    for size in (64, 16, 4, 1):
        at = 0
        while at < len(data):
            shorter = data[:at] + data[at + size :]
            if serves(shorter):
                data = shorter
            else:
                at += size
    return data


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    before = kept() if KEPT.exists() else {name: [] for name in ENTRIES}
    lines = []
    for name, entry in ENTRIES.items():
        entry(b"")  # loads what is loaded on first use
        inputs = _search(entry, [*before[name], *_seeds(name)], seconds, random.Random(name))
        print(f"{name}: {len(inputs)} inputs, {sum(map(len, inputs))} bytes")
        lines += [f"{name} {data.hex()}".rstrip() for data in inputs]
    KEPT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
