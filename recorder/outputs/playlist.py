"""The text of an M3U8: a pure function of the slices it lists. Loads no media library.

Vendor tags are read by the original's offline tools; the rules they live by are in its documentation of file names.
"""

from collections.abc import Iterable, Sequence
from urllib.parse import quote

from recorder.frames import Kind
from recorder.outputs.names import utc
from recorder.protocol import Slice

# Original playlists of 15 s slices say 18. RFC 8216, section 4.3.3.1 forbids the value to change while a playlist grows,
# so it starts with room for the usual wait for a keyframe and moves only for longer slices.
_TARGET_SECONDS = 18

# RFC 3986, section 3.3: what may stand in a path segment besides letters, digits and -._~. The colon may not stand in
# the first segment of a relative reference (section 4.2).
_SEGMENT_CHARACTERS = "!$&'()*+,;=@"


def render(slices: Sequence[Slice], *, ended: bool, correct_extinf: bool) -> str:
    """Write the playlist of `slices`, all of one list and in their order.

    `correct_extinf` ends EXTINF lines with the comma that RFC 8216 demands and the original leaves out by default.
    """
    longest_ns = max((item.duration_ns for item in slices), default=0)
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:3",
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-ALLOW-CACHE:YES",
        f"#EXT-X-TARGETDURATION:{max(_TARGET_SECONDS, -(-longest_ns // 1_000_000_000))}",
    ]
    for index, item in enumerate(slices):
        lines += _entry(item, discontinuity=item.discontinuity or index == 0, comma="," if correct_extinf else "")
    if ended:
        lines.append("#EXT-X-ENDLIST")
    return "\n".join(lines) + "\n"


def track_event(kind: Kind, start_ms: int) -> str:
    """The tag before the first slice after a stream started or restarted."""
    return f"#EXT-X-AGORA-TRACK-EVENT:EVENT=START,TRACK_TYPE={kind.upper()},TIME={utc(start_ms)}"


def rotate(width: int, height: int, rotation: int, at_ms: int) -> str:
    """The tag that tells size and rotation of the pictures from `at_ms` on.

    `rotation` is clockwise as in `EncodedFrame`; the tag counts anticlockwise.
    """
    return f"#EXT-X-AGORA-ROTATE:WIDTH={width},HEIGHT={height},ROTATE={-rotation % 360},TIME={utc(at_ms)}"


def _entry(item: Slice, *, discontinuity: bool, comma: str) -> Iterable[str]:
    if discontinuity:
        yield "#EXT-X-DISCONTINUITY"
    yield from item.tags
    seconds, microseconds = divmod((item.duration_ns + 500) // 1000, 1_000_000)
    yield f"#EXTINF:{seconds}.{microseconds:06d}{comma}"
    yield quoted(item.name)


def quoted(name: str) -> str:
    """A file name as a relative URL."""
    return quote(name, safe=_SEGMENT_CHARACTERS)
