"""Rows N1–N10: what a bad network may cost a recording. Each case is one recording; the bounds are those of the fault table."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from tests.chaos.live_room import LENGTH_TOLERANCE_SECONDS, UID, Leg, Recording, check_whole, live_room
from tests.impair.impairment import Burst, Conditions
from tests.impair.packets import Sighting

GAP_SECONDS: Final = {2: 0.5, 5: 2.0, 10: 3.0, 20: 5.0}  # by percent of loss, N1-N2
_NACK, _PLI = 205, 206  # RTCP packet types of feedback (RFC 4585 section 6.1)
_SYNC_SECONDS: Final = 0.045  # |A/V offset| p95 into a canvas of 30 fps, and the largest time shift
_SOUND_PACKET_SECONDS: Final = 0.02
_NOISE_SECONDS: Final = 0.3  # what a busy machine may add to gaps where the table allows none
_FIRST_VIDEO_TYPE: Final = 97  # aiortc's dynamic payload types: 96 is Opus, video follows

Measured = dict[str, Any]


async def loss(folder: Path, measured: Measured, *, seed: int, leg: Leg, percent: int, seconds: float, bursts: bool = False) -> None:
    """N1-N2: repaired or degraded, never stops."""
    async with live_room(folder, leg=leg, seed=seed) as room:
        chance = percent / 100
        in_bursts = Conditions(burst=Burst(begin=chance / 4, end=0.25))  # four packets long on average
        room.network.set_media(in_bursts if bursts else Conditions(loss=chance))
        room.network.set_feedback(Conditions(loss=chance))
        await asyncio.sleep(seconds)
        recording = await room.finish()
        counters = room.network.counters()
    seen = recording.seen[UID]
    measured |= seen.figures() | {
        "lost": counters.lost,
        "packets": counters.taken,
        "expected_seconds": round(recording.expected_seconds, 3),
    }
    check_whole(recording)
    assert counters.lost >= 0.5 * chance * counters.taken
    assert seen.frozen_seconds <= GAP_SECONDS[percent]
    assert seen.silent_seconds <= GAP_SECONDS[percent]


async def loss_of_sound(folder: Path, measured: Measured, *, seed: int, percent: int, seconds: float) -> None:
    """N1-N2 of a recording of sound alone, whose packets are read less often: nearly all that is lost is repaired."""
    async with live_room(folder, leg="recorder", seed=seed, video=False) as room:
        room.network.set_media(Conditions(loss=percent / 100))
        room.network.set_feedback(Conditions(loss=percent / 100))
        await asyncio.sleep(seconds)
        heard, expected = await room.finish_sound()
        counters = room.network.counters()
    measured |= {
        "seconds": round(heard.length, 3),
        "expected_seconds": round(expected, 3),
        "silent_seconds": round(heard.silent_seconds, 3),
        "longest_silence": round(max((gap.seconds for gap in heard.silent), default=0.0), 3),
        "lost": counters.lost,
        "packets": counters.taken,
        "beeps": len(heard.beeps),
    }
    assert abs(heard.length - expected) <= LENGTH_TOLERANCE_SECONDS
    assert counters.lost >= 0.5 * percent / 100 * counters.taken
    assert heard.silent_seconds <= min(GAP_SECONDS[percent], _SOUND_PACKET_SECONDS * counters.lost / 4)
    assert heard.silent == ()
    assert all(round(later - earlier) == 1 for earlier, later in pairwise(heard.beeps))
    assert len(heard.beeps) >= int(expected) - 1


@dataclass
class _LostForGood:
    """Loses one video packet when it is asked to, and every repetition of it: under its own number, or as RTX, so all of that."""

    wanted: bool = False
    lost: set[tuple[int, int]] = field(default_factory=set)  # SSRC and sequence number

    def __call__(self, packet: Sighting) -> bool:
        if packet.kind != "rtp" or packet.payload_type < _FIRST_VIDEO_TYPE:
            return False
        if self.wanted:
            self.wanted = False
            self.lost.add((packet.ssrc, packet.sequence))
        sources = {ssrc for ssrc, _ in self.lost}
        return (packet.ssrc, packet.sequence) in self.lost or (bool(sources) and packet.ssrc not in sources)


@dataclass
class _Unheard:
    """Loses feedback of some types, and what may hold such behind another: only the first packet of a datagram can be told."""

    types: tuple[int, ...]
    lost: Counter[int] = field(default_factory=Counter)  # those alone in their datagram, by type

    def __call__(self, packet: Sighting) -> bool:
        if packet.kind != "rtcp" or not (packet.compound or packet.payload_type in self.types):
            return False
        self.lost[packet.payload_type] += not packet.compound
        return True


async def unrepaired_loss(folder: Path, measured: Measured, *, seed: int, leg: Leg, times: int = 3) -> None:
    """N3: time-out, PLI, go on; each costs at most a second."""
    async with live_room(folder, leg=leg, seed=seed) as room:
        losses = _LostForGood()
        room.network.set_media(Conditions(drop=losses))
        for _ in range(times):
            await asyncio.sleep(2.5)
            losses.wanted = True
        await asyncio.sleep(2.5)
        recording = await room.finish()
    seen = recording.seen[UID]
    measured |= seen.figures()
    check_whole(recording)
    assert len(losses.lost) == times
    assert all(gap.seconds <= 1.0 for gap in seen.frozen)
    assert seen.silent_seconds <= _NOISE_SECONDS


async def feedback_lost(folder: Path, measured: Measured, *, seed: int, leg: Leg, types: tuple[int, ...] = (_NACK, _PLI)) -> None:
    """N4: no NACK or no PLI arrives for 3 s, in which packets are lost; afterwards it goes on.

    Where NACKs arrive every loss is repaired, and no keyframe asked for: so one packet is lost for good.
    """
    async with live_room(folder, leg=leg, seed=seed) as room:
        await asyncio.sleep(2)
        unheard, losses = _Unheard(types), _LostForGood(wanted=_NACK not in types)
        room.network.set_media(Conditions(drop=losses) if losses.wanted else Conditions(loss=0.05))
        room.network.set_feedback(Conditions(drop=unheard))
        await asyncio.sleep(3)
        room.network.set_media(Conditions())
        room.network.set_feedback(Conditions())
        room.mark("over")
        await asyncio.sleep(4)
        recording = await room.finish()
        counters = room.network.counters()
    seen = recording.seen[UID]
    measured |= seen.figures() | {"feedback_lost": dict(unheard.lost), "lost": counters.lost + counters.dropped}
    check_whole(recording)
    assert counters.lost + counters.dropped > 0
    assert unheard.lost[types[0]] > 0  # a PLI has its own datagram for sure where no NACK is due
    assert seen.frozen_seconds <= 4.0
    assert all(gap.start + gap.seconds <= recording.marks["over"] + 1 for gap in seen.frozen)


async def disorder(folder: Path, measured: Measured, *, seed: int, leg: Leg, media: tuple[Conditions, ...], seconds: float) -> None:
    """N5-N6: each kind of disorder for so many seconds; everything is seen in order, once, and nothing is missing."""
    async with live_room(folder, leg=leg, seed=seed) as room:
        for conditions in media:
            room.network.set_media(conditions)
            await asyncio.sleep(seconds)
        recording = await room.finish()
        counters = room.network.counters()
    seen = recording.seen[UID]
    measured |= seen.figures() | {"reordered": counters.reordered, "duplicated": counters.duplicated, "replayed": counters.replayed}
    check_whole(recording)
    assert seen.frozen_seconds <= _NOISE_SECONDS
    assert seen.silent_seconds <= _NOISE_SECONDS
    assert all(round(later - earlier) == 1 for earlier, later in pairwise(seen.beeps))
    assert seen.offset_p95() <= _SYNC_SECONDS


REORDERED: Final = Conditions(reorder=0.02, reorder_packets=50)
JITTERED: Final = Conditions(jitter_ms=200, keeps_order=False)
REPEATED: Final = Conditions(duplicate=0.3, replay=0.1)


async def blackout(folder: Path, measured: Measured, *, seed: int, leg: Leg, seconds: float, extra: float) -> None:
    """N7-N9: freeze and silence of the blackout's length and at most `extra` seconds more, then no time shift."""
    async with live_room(folder, leg=leg, seed=seed) as room:
        await asyncio.sleep(4)
        sessions = len(room.network.relays)
        room.mark("begins")
        await room.network.black_out(seconds)
        room.mark("ends")
        await asyncio.sleep(extra + 4)
        recording = await room.finish()
        measured |= {"new_sessions": len(room.network.relays) - sessions}
        assert room.network.counters().blacked_out > 0
    _check_interruption(recording, measured, seconds=seconds, extra=extra)


async def path_change(folder: Path, measured: Measured, *, seed: int, leg: Leg, gone: bool, after: float = 11) -> None:
    """N10: the peer's address changes as behind a NAT that forgot it, or (`gone`) the path ends; found out within 5 s."""
    async with live_room(folder, leg=leg, seed=seed) as room:
        await asyncio.sleep(4)
        sessions = len(room.network.relays)
        room.mark("begins")
        for relay in room.network.relays:
            relay.close() if gone else relay.move()
        room.mark("ends")
        await asyncio.sleep(after)
        recording = await room.finish()
        measured |= {"new_sessions": len(room.network.relays) - sessions}
    # Nobody is told of it: the watchdog's 5 s without a packet, and what opening a session takes.
    _check_interruption(recording, measured, seconds=0, extra=5)


def _check_interruption(recording: Recording, measured: Measured, *, seconds: float, extra: float) -> None:
    seen = recording.seen[UID]
    begins, ends = recording.marks["begins"], recording.marks["ends"]
    shift = seen.shift_between((1, begins), (ends + extra, recording.expected_seconds))
    measured |= seen.figures() | {
        "shift_ms": round(1000 * shift, 1),
        "blackout": [round(begins, 2), round(ends, 2)],
        "frozen": [(round(gap.start, 2), round(gap.seconds, 2)) for gap in seen.frozen],
        "av_offsets_ms": [(round(at, 2), round(1000 * offset)) for at, offset in seen.offsets if at > begins],
        "silent": [(round(gap.start, 2), round(gap.seconds, 2)) for gap in seen.silent],
    }
    check_whole(recording)
    for gaps in (seen.frozen, seen.silent):
        elsewhere = [gap for gap in gaps if gap.start < begins - 1 or gap.start + gap.seconds > ends + extra]
        assert sum(gap.seconds for gap in gaps) <= seconds + extra
        assert sum(gap.seconds for gap in elsewhere) <= _NOISE_SECONDS
    assert abs(shift) <= _SYNC_SECONDS
    assert seen.offset_p95(without=(begins, ends + extra)) <= _SYNC_SECONDS


async def three_bad_publishers(folder: Path, measured: Measured, *, seed: int, seconds: float) -> None:
    """5 % loss, 30 ms of jitter and reordering on the way of every publisher, in both directions."""
    bad = Conditions(loss=0.05, jitter_ms=30, keeps_order=False, reorder=0.01, reorder_packets=10)
    uids = (101, 102, 103)
    async with live_room(folder, leg="publisher", seed=seed, uids=uids, live=False) as room:
        room.network.set_media(bad)
        room.network.set_feedback(bad)
        await asyncio.sleep(seconds)
        recording = await room.finish()
    measured |= {str(uid): recording.seen[uid].figures() for uid in uids} | {"expected_seconds": round(recording.expected_seconds, 3)}
    for uid in uids:
        seen = check_whole(recording, uid)
        assert seen.frozen_seconds <= GAP_SECONDS[5], uid
        assert len(seen.beeps) >= seconds - 2, uid
        assert seen.offset_p95() <= _SYNC_SECONDS, uid
