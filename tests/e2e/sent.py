"""What publishers send, frame by frame, to be found again in files."""

from collections.abc import Iterator
from pathlib import Path

import av

from recorder.tools.content import Style
from recorder.tools.publish_media import Library, VideoCodec
from tests.live import ROOT

_DELIMITER = 9


class Sent:
    """The frames of a publisher's loops: which picture a payload shows."""

    def __init__(self) -> None:
        self._pictures: dict[bytes, set[int]] = {}
        self._length = 0

    async def add(self, uid: int, codec: VideoCodec, *, size: tuple[int, int], fps: int, kbps: int) -> None:
        loop = await Library(ROOT / "build" / "media").video(Style(uid, *size, fps), codec, kbps)
        self._length = loop.frames
        for start, run in loop.runs.items():
            for position, payload in enumerate(run):
                self._pictures.setdefault(units(payload) if codec == "h264" else payload, set()).add(start + position)

    def follow(self, payloads: list[bytes]) -> int:
        """How many of these frames do not show the picture after the one before. Each must be one that was sent, to the bit."""
        breaks = 0
        expected: set[int] = set()
        for payload in payloads:
            shown = self._pictures.get(payload)
            assert shown, f"no such frame was sent: {len(payload)} bytes"
            following = shown & expected
            breaks += bool(expected) and not following
            expected = {(picture + 1) % self._length for picture in following or shown}
        return breaks


def video_payloads(path: Path) -> Iterator[tuple[float, bytes]]:
    """The encoded frames of a file with their times in seconds, comparable with what `Sent` knows."""
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.video[0]):
            if packet.size:
                assert packet.pts is not None
                yield float(packet.pts * packet.time_base), units(bytes(packet)) if path.suffix == ".ts" else bytes(packet)


def units(access_unit: bytes) -> bytes:
    """H.264 whatever its start codes, and without the delimiter that transport streams demand."""
    found = [unit.rstrip(b"\0") for unit in access_unit.split(b"\0\0\1")]
    return b"\0\0\1".join(unit for unit in found if unit and unit[0] & 0x1F != _DELIMITER)
