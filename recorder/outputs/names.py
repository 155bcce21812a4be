"""Names of everything a recording stores, without the customer's prefix. Pure."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from recorder.frames import Track

_TRACK_PLAYLIST = re.compile(r"__uid_s_(?P<uid>\d+)__uid_e_(?P<kind>audio|video)\.m3u8")
_UNIX_ZERO = datetime(1970, 1, 1, tzinfo=UTC)

# The only two characters that no file name can hold; everything else of a channel name stays as it is.
_IMPOSSIBLE = str.maketrans({"/": "-", "\0": "-"})


def utc(unix_ms: int) -> str:
    """The 17 digits `YYYYMMDDhhmmssmmm` of a moment."""
    moment = _UNIX_ZERO + timedelta(milliseconds=unix_ms)
    return f"{moment:%Y%m%d%H%M%S}{unix_ms % 1000:03d}"


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one recording."""

    sid: str
    channel: str

    @property
    def _stem(self) -> str:
        return f"{self.sid}_{self.channel.translate(_IMPOSSIBLE)}"

    def playlist(self) -> str:
        return f"{self._stem}.m3u8"

    def slice(self, start_ms: int) -> str:
        return f"{self._stem}_{utc(start_ms)}.ts"

    def mp4(self, index: int) -> str:
        return f"{self._stem}_{index}.mp4"

    def track_playlist(self, track: Track) -> str:
        return f"{self._user(track.uid)}_{track.kind}.m3u8"

    def track_slice(self, track: Track, start_ms: int, suffix: Literal["ts", "webm"]) -> str:
        return f"{self._user(track.uid)}_{track.kind}_{utc(start_ms)}.{suffix}"

    def merged_playlist(self, uid: int, suffix: Literal["m3u8", "mpd"]) -> str:
        return f"{self._user(uid)}_av.{suffix}"

    def track_of(self, playlist: str) -> Track | None:
        """Whose playlist this is; None for names of other files."""
        match = _TRACK_PLAYLIST.fullmatch(playlist.removeprefix(self._stem))
        return Track(int(match["uid"]), "audio" if match["kind"] == "audio" else "video") if match else None

    def snapshot(self, uid: int, taken_ms: int) -> str:
        return f"{self._user(uid)}_video_{utc(taken_ms)}.jpg"

    def timeline(self) -> str:
        return f"{self._stem}_timeline.json"

    def manifest(self) -> str:
        return f"{self._stem}_manifest.json"

    def everything(self) -> str:
        """What all of these begin with."""
        return self._stem

    def _user(self, uid: int) -> str:
        return f"{self._stem}__uid_s_{uid}__uid_e"
