"""One order of time for sound and picture of a composite, and the places where its files may be cut. Pure."""

import heapq
import itertools
from dataclasses import dataclass

from recorder.frames import Kind

# A stream this far behind the other is not waited for.
_PATIENCE_NS = 1_000_000_000

# Keyframes are made for the cut at the same moments that are computed here; only rounding lies between.
_EARLY_NS = 1_000_000


@dataclass(frozen=True, slots=True)
class MediaPacket:
    kind: Kind
    data: bytes
    time_ns: int
    keyframe: bool
    cut: bool  # a new file begins with this packet


class Interleaver:
    """Takes packets as encoders give them, gives them back in order of time.

    The leading stream (video if there is one) decides the cuts: at its first keyframe that comes `limit_ns` or more
    after the cut before. At the same time the leading stream comes first, so the other's packet is behind the cut.
    """

    def __init__(self, *, video: bool, audio: bool, limit_ns: int) -> None:
        self._lead: Kind = "video" if video else "audio"
        self._newest_ns: dict[Kind, int | None] = {kind: None for kind, wanted in _kinds(video, audio) if wanted}
        self._limit_ns = limit_ns
        self._waiting: list[tuple[int, bool, int, MediaPacket]] = []
        self._arrival = itertools.count()
        self.cut_ns: int | None = None  # the first keyframe from here on is a cut; None: any

    def push(self, kind: Kind, data: bytes, time_ns: int, *, keyframe: bool = True) -> list[MediaPacket]:
        cut = kind == self._lead and keyframe and (self.cut_ns is None or time_ns >= self.cut_ns - _EARLY_NS)
        if cut:
            self.cut_ns = time_ns + self._limit_ns
        packet = MediaPacket(kind, data, time_ns, keyframe, cut)
        heapq.heappush(self._waiting, (time_ns, kind != self._lead, next(self._arrival), packet))
        newest_ns = self._newest_ns[kind]
        self._newest_ns[kind] = time_ns if newest_ns is None else max(newest_ns, time_ns)
        return self._pop(self._settled_ns())

    def flush(self) -> list[MediaPacket]:
        return [heapq.heappop(self._waiting)[-1] for _ in range(len(self._waiting))]

    def _settled_ns(self) -> int:
        """Nothing earlier is expected."""
        known = [time_ns for time_ns in self._newest_ns.values() if time_ns is not None]
        patience_ns = max(known) - _PATIENCE_NS
        return max(min(known), patience_ns) if len(known) == len(self._newest_ns) else patience_ns

    def _pop(self, until_ns: int) -> list[MediaPacket]:
        packets = []
        while self._waiting and self._waiting[0][0] <= until_ns:
            packets.append(heapq.heappop(self._waiting)[-1])
        return packets


def _kinds(video: bool, audio: bool) -> tuple[tuple[Kind, bool], tuple[Kind, bool]]:
    return ("video", video), ("audio", audio)
