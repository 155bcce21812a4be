"""The file that is made: it has its name only when it is whole."""

import contextlib
import heapq
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from av.error import FFmpegError

from recorder.outputs.mux import Mp4File
from recorder.tools.offline import OfflineError
from recorder.tools.offline.media import Coded

Progress = Callable[[str, int, int], None]  # file, how far in ns, of how many

_TOLD_NS = 1_000_000_000  # of media from one report of progress to the next


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write what becomes `path` when all went well.

    Raises:
        OfflineError: it cannot be made.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    except (FFmpegError, OSError) as error:
        raise OfflineError(f"{path.name} cannot be made: {getattr(error, 'strerror', None) or error}") from error
    finally:
        part.unlink(missing_ok=True)


def write_mp4(
    path: Path,
    size: tuple[int, int] | None,
    video: Iterable[Coded] | None,
    audio: Iterable[Coded] | None,
    tell: Callable[[int], None],
) -> None:
    """Write H.264 in Annex B form and AAC in ADTS form, each in its order, with the index in front.

    `tell` is told how far it is. `size` is that of the pictures.

    Raises:
        OfflineError: it cannot be made.
    """
    told_ns = 0
    with whole(path) as part:
        file = Mp4File(part, origin_ns=0, size=size if video is not None else None, audio=audio is not None, fragmented=False)
        try:
            streams: list[Iterable[tuple[Coded, bool]]] = []
            for packets, is_video in ((video, True), (audio, False)):
                if packets is not None:
                    streams.append(zip(packets, itertools.repeat(is_video), strict=False))
            # What comes first stands first: players read from the beginning.
            for packet, is_video in heapq.merge(*streams, key=lambda pair: pair[0].time_ns - pair[0].early_ns):
                if is_video:
                    file.write_video(
                        packet.data, packet.time_ns, early_ns=packet.early_ns, keyframe=packet.keyframe, duration_ns=packet.lasts_ns
                    )
                else:
                    file.write_audio(packet.data, packet.time_ns)
                if packet.time_ns - told_ns >= _TOLD_NS:
                    told_ns = packet.time_ns
                    tell(told_ns)
        finally:
            file.close()
