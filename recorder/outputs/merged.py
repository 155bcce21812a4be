"""The merged list of one participant: pure functions of the slices that its audio and video playlists list. Loads no media library.

For H.264 it is an HLS multivariant playlist over both (RFC 8216 section 4.3.4), which players play in sync. WebM slices, each a file
that stands alone, are told by an MPD (ISO/IEC 23009-1). In the MPD each element has a line of its own, with the attributes that the
original's offline tools look for.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from recorder.frames import Kind
from recorder.outputs.names import utc
from recorder.outputs.playlist import quoted
from recorder.protocol import Slice

_MPD = "urn:mpeg:dash:schema:mpd:2011"
_OURS = "urn:cloud-recorder:mpd:2026"  # elements that DASH does not know
_ROTATE = re.compile(r"#EXT-X-AGORA-ROTATE:WIDTH=(?P<width>\d+),HEIGHT=(?P<height>\d+),ROTATE=(?P<rotate>\d+),TIME=(?P<time>\d+)")
_START = re.compile(r"#EXT-X-AGORA-TRACK-EVENT:EVENT=START,TRACK_TYPE=(?:AUDIO|VIDEO),TIME=(?P<time>\d+)")
_Told = list[tuple[str, dict[str, str]]]  # names and attributes of elements
_BITS_STEP = 100_000  # bandwidth is told in such steps, so that the list changes seldom

ET.register_namespace("", _MPD)
ET.register_namespace("ext", _OURS)


def multivariant(video: Sequence[Slice], audio: Sequence[Slice]) -> str:
    """The list of a participant whose slices are transport streams; at least one of the two is not empty."""
    lines = ["#EXTM3U", "#EXT-X-VERSION:3"]
    bandwidth = _bandwidth(video) + _bandwidth(audio)
    if video and audio:
        lines.append(f'#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="audio",DEFAULT=YES,AUTOSELECT=YES,URI="{_address(audio)}"')
        lines.append(f'#EXT-X-STREAM-INF:BANDWIDTH={bandwidth},AUDIO="audio"')
    else:
        lines.append(f"#EXT-X-STREAM-INF:BANDWIDTH={bandwidth}")
    lines.append(_address(video or audio))
    return "\n".join(lines) + "\n"


def mpd(video: Sequence[Slice], audio: Sequence[Slice], *, ended: bool) -> str:
    """The list of a participant whose slices are WebM; at least one of the two is not empty."""
    first_ms = min(item.start_ms for item in (*video, *audio))
    root = ET.Element(f"{{{_MPD}}}MPD", profiles="urn:mpeg:dash:profile:full:2011", minBufferTime="PT15S")
    last_ms = max(item.start_ms + item.duration_ns / 1e6 for item in (*video, *audio))
    if ended:
        root.set("type", "static")
        root.set("mediaPresentationDuration", f"PT{(last_ms - first_ms) / 1000:.3f}S")
    else:
        root.set("type", "dynamic")
        root.set("availabilityStartTime", _moment(first_ms))
        root.set("publishTime", _moment(last_ms))  # the earliest that it can have been
        root.set("minimumUpdatePeriod", "PT15S")
    period = ET.SubElement(root, f"{{{_MPD}}}Period", id="0", start="PT0S")
    for kind, slices in (("video", video), ("audio", audio)):
        if slices:
            _adaptation_set(period, kind, slices, first_ms)  # type: ignore[arg-type]  # literals
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _adaptation_set(period: ET.Element, kind: Kind, slices: Sequence[Slice], zero_ms: int) -> None:
    """A representation for each stretch of slices without a change: the schema lets foreign elements stand in front of a segment
    list, not inside of it."""
    around = ET.SubElement(period, f"{{{_MPD}}}AdaptationSet", contentType=kind, mimeType=f"{kind}/webm")
    for number, (told, stretch) in enumerate(_stretches(slices)):
        representation = ET.SubElement(
            around, f"{{{_MPD}}}Representation", id=f"{kind}{number}", bandwidth=str(_bandwidth(stretch) or _BITS_STEP)
        )
        for name, attributes in told:
            ET.SubElement(representation, f"{{{_OURS}}}{name}", attributes)
        segments = ET.SubElement(representation, f"{{{_MPD}}}SegmentList", timescale="1000")
        times = ET.SubElement(segments, f"{{{_MPD}}}SegmentTimeline")
        for item in stretch:
            ET.SubElement(times, f"{{{_MPD}}}S", t=str(item.start_ms - zero_ms), d=str(round(item.duration_ns / 1e6)))
        for item in stretch:
            ET.SubElement(segments, f"{{{_MPD}}}SegmentURL", media=quoted(item.name))


def _stretches(slices: Sequence[Slice]) -> list[tuple[_Told, list[Slice]]]:
    found: list[tuple[_Told, list[Slice]]] = []
    for item in slices:
        told = list(_told(item, first=not found))
        if told:
            found.append((told, []))
        found[-1][1].append(item)
    return found


def _told(item: Slice, *, first: bool) -> Iterator[tuple[str, dict[str, str]]]:
    """What the vendor's tags say before a slice."""
    if item.discontinuity or first:
        yield "ExtDiscontinuity", {"time": utc(item.start_ms)}
    for tag in item.tags:
        if match := _ROTATE.fullmatch(tag):
            yield "ExtRotate", match.groupdict()
        elif match := _START.fullmatch(tag):
            yield "ExtTrackEvent", {"event": "START", "time": match["time"]}


def _moment(unix_ms: float) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds")


def _bandwidth(slices: Sequence[Slice]) -> int:
    """The peak of a slice in bit/s, rounded up; of very short ones that of their whole."""
    rates = [item.size * 8 * 1e9 / max(item.duration_ns, 1_000_000_000) for item in slices]
    return -(-int(max(rates, default=0)) // _BITS_STEP) * _BITS_STEP


def _address(slices: Sequence[Slice]) -> str:
    playlist = slices[0].playlist
    assert playlist
    return quoted(playlist)
