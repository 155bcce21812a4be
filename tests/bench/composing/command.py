"""The same composite by the `ffmpeg` command: equal codecs and encoder settings, equal tiles, area scaling, a plain sum of the sound."""

import resource
import shutil
import subprocess
import tempfile
from pathlib import Path

from mixer import layouts
from mixer.fit import Size, pixels
from recorder.frames import Track
from tests.bench.composing import LAYOUT, Room, media, written


class NoFfmpeg(Exception):
    """This machine has no ffmpeg command."""


class Ffmpeg:
    """Composes the tracks of a room from files."""

    def __init__(self, room: Room) -> None:
        """
        Raises:
            NoFfmpeg: it is not installed.
        """
        program = shutil.which("ffmpeg")
        if program is None:
            raise NoFfmpeg("there is no ffmpeg command in the path")
        self._program = program
        self._room = room
        self._folder = tempfile.TemporaryDirectory()
        self._inputs = written(Path(self._folder.name), media(room))

    def version(self) -> str:
        return self._said("-version").split()[2]

    def milliseconds_per_second(self) -> float:
        """CPU per second of media, without the program's start."""
        start = self._cpu("-version")
        return (self._cpu(*self._words()) - start) * 1000 / self._room.seconds

    def _cpu(self, *words: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._said(*words)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def _said(self, *words: str) -> str:
        return subprocess.run([self._program, *words], check=True, capture_output=True, text=True).stdout

    def _words(self) -> list[str]:
        words = ["-v", "error", "-nostdin", "-y", "-filter_complex_threads", "1", "-filter_threads", "1"]
        for track, path in self._inputs.items():
            words += ["-threads", "1", *(("-c:v", "vp8") if track.kind == "video" else ("-c:a", "opus")), "-i", str(path)]
        words += ["-filter_complex", self._graph(), "-map", "[video]", "-map", "[sound]", *self._encoders()]
        return [*words, "-f", "mpegts", f"{self._folder.name}/out.ts"]

    def _graph(self) -> str:
        canvas = Size(self._room.canvas.width, self._room.canvas.height)
        tracks = list(self._inputs)
        tiles = [pixels(p.rect, canvas) for p in layouts.load(LAYOUT).place(self._room.uids, canvas, layouts.Options())]
        source_fps = self._room.source[2] if self._room.source else 0
        graph = []
        for number, (uid, tile) in enumerate(zip(self._room.uids, tiles, strict=True)):
            index = tracks.index(Track(uid, "video"))
            graph.append(f"[{index}:v]fps={source_fps},scale={tile.width}:{tile.height}:flags=area[tile{number}]")
        places = "|".join(f"{tile.x}_{tile.y}" for tile in tiles)
        stacked = "".join(f"[tile{number}]" for number in range(len(tiles)))
        # The stack need not be as large as the canvas when its last row or column is bars.
        whole = f"pad={canvas.width}:{canvas.height}," if self._bars(canvas) else ""
        graph.append(f"{stacked}xstack=inputs={len(tiles)}:layout={places}:fill=black,{whole}fps={self._room.canvas.fps}[video]")
        voices = "".join(f"[{index}:a]" for index, track in enumerate(tracks) if track.kind == "audio")
        graph.append(f"{voices}amix=inputs={self._room.people}:normalize=0[sound]")
        return ";".join(graph)

    def _bars(self, canvas: Size) -> bool:
        tiles = [pixels(p.rect, canvas) for p in layouts.load(LAYOUT).place(self._room.uids, canvas, layouts.Options())]
        return max(tile.right for tile in tiles) < canvas.width or max(tile.bottom for tile in tiles) < canvas.height

    def _encoders(self) -> list[str]:
        kbps = self._room.canvas.bitrate_kbps
        return [
            *("-c:v", "libx264", "-preset", "superfast", "-tune", "zerolatency", "-profile:v", "high", "-sc_threshold", "0"),
            *("-b:v", f"{kbps}k", "-maxrate", f"{kbps}k", "-bufsize", f"{2 * kbps}k", "-bf", "0", "-threads:v", "1"),
            *("-g", str(4 * self._room.canvas.fps), "-c:a", "aac", "-ac", "1", "-b:a", "48k"),
        ]
