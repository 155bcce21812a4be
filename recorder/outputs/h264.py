"""What a slice of H.264 needs that single access units don't tell: parameter sets and decode times. Pure."""

import bisect
from collections.abc import Iterator
from itertools import islice

_SPS, _PPS, _DELIMITER = 7, 8, 9
_CODED_SLICES = (1, 5)
_HEADS = 64  # NAL units looked at: a hostile sender may send thousands

# Pictures (ITU-T H.264, max_num_reorder_frames). One that is shown before more than that: the sender's clock was set back.
_MAX_REORDER = 16
_TICK_NS = 11_112  # just over one tick of 90 kHz


def heads(access_unit: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (type, start, end) of the NAL units in front of the first coded slice; `start` is that of the start code."""
    found = access_unit.find(b"\0\0\1")
    while found >= 0 and found + 3 < len(access_unit):
        kind = access_unit[found + 3] & 0x1F
        if kind in _CODED_SLICES:
            return
        following = access_unit.find(b"\0\0\1", found + 3)
        yield kind, found, following if following >= 0 else len(access_unit)
        found = following


class ParameterSets:
    """The stream's last SPS and PPS, for slices whose first access unit comes without them.

    Some senders send them once, at the start; a slice must be playable by itself.
    """

    def __init__(self) -> None:
        self._known = b""

    def observe(self, access_unit: bytes) -> None:
        units = list(islice(heads(access_unit), _HEADS))
        if any(kind == _SPS for kind, _, _ in units):
            self._known = b"".join(b"\0" + access_unit[start:end].rstrip(b"\0") for kind, start, end in units if kind in (_SPS, _PPS))

    def complete(self, access_unit: bytes) -> bytes:
        """The access unit with SPS and PPS in it."""
        units = list(islice(heads(access_unit), _HEADS))
        if any(kind == _SPS for kind, _, _ in units):
            return access_unit
        # ITU-T H.264, 7.4.1.2.3: an access unit delimiter stays first.
        split = units[0][2] if units and units[0][0] == _DELIMITER else 0
        return access_unit[:split] + self._known + access_unit[split:]


class DecodeClock:
    """Decode times for access units that carry presentation times only: they always rise and never pass the latter.

    Publishers send no B-frames as a rule, so both are the same at first. The first reordered pictures show by how many
    pictures decoding has to run ahead; from then on it does.
    """

    def __init__(self) -> None:
        self._recent: list[int] = []  # presentation times, sorted
        self._depth = 0
        self._last_ns: int | None = None

    def place(self, pts_ns: int) -> tuple[int, int]:
        """Returns (pts, dts) in ns. `pts` moves only when no valid `dts` is left before it."""
        shown_later = len(self._recent) - bisect.bisect_right(self._recent, pts_ns)
        if shown_later > _MAX_REORDER:
            self._recent.clear()
        else:
            self._depth = max(self._depth, shown_later)
        bisect.insort(self._recent, pts_ns)
        del self._recent[: -_MAX_REORDER - 1]
        dts_ns = self._recent[-min(self._depth + 1, len(self._recent))]
        if self._last_ns is not None:
            dts_ns = max(dts_ns, self._last_ns + _TICK_NS)
        self._last_ns = dts_ns
        return max(pts_ns, dts_ns), dts_ns
