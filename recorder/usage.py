"""The usage meter: how long a session recorded in each category, by UTC day. Pure; times are Unix milliseconds, areas are pixels.

The category of a moment is that of the aggregate resolution: the sum of width x height over the videos recorded at that moment.
Streams do not multiply time, and the whole session counts, also while nothing is there to record.
"""

from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, get_args

Category = Literal["audio", "hd", "fhd", "2k", "2k+", "hd+", "snapshot", "web-hd", "web-fhd"]
Used = Mapping[tuple[str, Category], int]
"""Milliseconds by UTC day (YYYY-MM-DD) and category."""

CATEGORIES: Final[tuple[Category, ...]] = get_args(Category)
GRACE_MS: Final = 3_000  # a video that pauses for no longer goes on; after more it has ended with its last frame

_DAY_MS: Final = 86_400_000
_LARGEST: Final[tuple[tuple[int, Category], ...]] = ((1280 * 720, "hd"), (1920 * 1080, "fhd"), (2560 * 1440, "2k"))
_CALIBRATED: Final = {640 * 352: 640 * 360}
_BEFORE_2021: Final[Mapping[Category, Category]] = {"fhd": "hd+", "2k": "hd+", "2k+": "hd+"}


def calibrated(width: int, height: int) -> int:
    """The area that a video of this size counts with."""
    return _CALIBRATED.get(width * height, width * height)


def category_of(area: int) -> Category:
    """The category of an aggregate resolution; 0: no video. There is none above 2K+."""
    if area == 0:
        return "audio"
    return next((category for largest, category in _LARGEST if area <= largest), "2k+")


def web_category(width: int, height: int) -> Category:
    """The category of a web page recording with an output of this size."""
    return "web-hd" if width * height <= 1280 * 720 else "web-fhd"


def before_2021(category: Category) -> Category:
    """What it was called when everything above HD was one category, HD+."""
    return _BEFORE_2021.get(category, category)


def day_of(time_ms: int) -> str:
    """The UTC day, as YYYY-MM-DD."""
    return datetime.fromtimestamp(time_ms // 1000, UTC).date().isoformat()


class Tally:
    """Adds up the time between changes of what is recorded."""

    def __init__(self, begin_ms: int, *, snapshots_only: bool = False) -> None:
        """`snapshots_only`: all of the time counts as `snapshot` besides, so that it can be priced either way."""
        self._until_ms = begin_ms
        self._areas: dict[int, int] = {}
        self._used: Counter[tuple[str, Category]] = Counter()
        self._snapshots_only = snapshots_only

    @property
    def used(self) -> Used:
        return self._used

    @property
    def until_ms(self) -> int:
        """All the time before is counted."""
        return self._until_ms

    def change(self, time_ms: int, uid: int, area: int) -> None:
        """From this time on, not before the last one, the video of `uid` has this area; 0: it is not recorded."""
        self.advance(time_ms)
        self._areas[uid] = area

    def advance(self, time_ms: int) -> None:
        """Count up to this time; one in the past changes nothing."""
        category = category_of(sum(self._areas.values()))
        for day, milliseconds in _days(self._until_ms, time_ms):
            self._used[day, category] += milliseconds
            if self._snapshots_only:
                self._used[day, "snapshot"] += milliseconds
        self._until_ms = max(self._until_ms, time_ms)


def _days(begin_ms: int, end_ms: int) -> Iterator[tuple[str, int]]:
    """The parts of this time on each UTC day."""
    while begin_ms < end_ms:
        midnight_ms = (begin_ms // _DAY_MS + 1) * _DAY_MS
        yield day_of(begin_ms), min(midnight_ms, end_ms) - begin_ms
        begin_ms = midnight_ms


@dataclass(slots=True)
class _Video:
    area: int
    last_ms: int


class Meter:
    """Measures a running session by the frames that arrive. Calls come in the order of time.

    Whether a video pauses or has ended shows later, so the time after its last frame is counted only then: `advance` may be up to
    `GRACE_MS` behind, and what it has counted never becomes less.
    """

    def __init__(self, begin_ms: int, *, snapshots_only: bool = False) -> None:
        self._tally = Tally(begin_ms, snapshots_only=snapshots_only)
        self._videos: dict[int, _Video] = {}  # those that have not ended, as far as is known
        self._changes: list[tuple[int, int, int]] = []  # time, uid, area; not counted yet

    @property
    def used(self) -> Used:
        """What is counted so far."""
        return self._tally.used

    def picture(self, uid: int, width: int, height: int, now_ms: int) -> None:
        """A frame of a recorded video has arrived. Without a size, which is not known yet, it does not count."""
        area = calibrated(width, height)
        if area == 0:
            return
        now_ms = max(now_ms, self._tally.until_ms)
        video = self._videos.get(uid)
        if video and now_ms - video.last_ms > GRACE_MS:
            self._end(uid)
            video = None
        if video is None or video.area != area:
            self._note(now_ms, uid, area)
            self._videos[uid] = _Video(area, now_ms)
        else:
            video.last_ms = now_ms

    def advance(self, now_ms: int) -> Used:
        """Count what is certain by now; returns all that is counted."""
        self._end_silent(now_ms)
        return self._count(min((now_ms, *(video.last_ms for video in self._videos.values()))))

    def close(self, now_ms: int) -> Used:
        """Count up to the session's end: what has not ended by then is recorded up to it."""
        self._end_silent(now_ms)
        return self._count(now_ms)

    def _end_silent(self, now_ms: int) -> None:
        for uid in [uid for uid, video in self._videos.items() if now_ms - video.last_ms > GRACE_MS]:
            self._end(uid)

    def _end(self, uid: int) -> None:
        self._note(self._videos.pop(uid).last_ms, uid, 0)

    def _note(self, time_ms: int, uid: int, area: int) -> None:
        insort(self._changes, (time_ms, uid, area), key=_time)

    def _count(self, until_ms: int) -> Used:
        due = bisect_right(self._changes, until_ms, key=_time)
        for change in self._changes[:due]:
            self._tally.change(*change)
        del self._changes[:due]
        self._tally.advance(until_ms)
        return self._tally.used


def _time(change: tuple[int, int, int]) -> int:
    return change[0]
