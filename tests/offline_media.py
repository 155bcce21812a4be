"""Folders with finished recordings, as a customer downloads them, for the tests of the offline tools."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recorder.outputs import merged
from recorder.outputs.playlist import render
from recorder.protocol import Slice
from recorder.spec import Canvas, RecordingSpec
from recorder.tools import measure
from tests.integration.media import Person
from tests.integration.straight_line import Recorded, record

SID = "a" * 32
START = "20231114221320000"  # UTC of the recording's zero


@dataclass(frozen=True, slots=True)
class Folder:
    """A downloaded recording; `slices` by playlist."""

    path: Path
    slices: dict[str, list[Slice]]

    def of(self, uid: int, kind: str) -> list[Slice]:
        return self.slices[f"{SID}_room__uid_s_{uid}__uid_e_{kind}.m3u8"]

    def made(self) -> set[str]:
        """What was not there before."""
        recorded = {item.name for items in self.slices.values() for item in items}
        return {path.name for path in self.path.iterdir() if path.name not in recorded and path.suffix not in (".m3u8", ".mpd")}


def person(uid: int = 101, codec: str | None = "h264", start: float = 0, end: float = 10, **others: object) -> Person:
    """Small pictures at 30 per second."""
    return Person(uid, codec, start=start, end=end, **{"width": 320, "height": 180, **others})  # type: ignore[arg-type]


def recording(
    tmp_path: Path,
    people: Sequence[Person],
    until: float = 10,
    *,
    slice_seconds: float = 4,
    stream_mode: str = "default",
    canvas: Canvas | None = None,
    audio_profile: int = 0,
) -> Folder:
    """Record `people`: individually, or as a composite on `canvas`."""
    recorded = Recorded(tmp_path / "recording")
    spec = RecordingSpec(sid=SID, app_id="app", channel="room", uid=1, mode="individual", stream_mode=stream_mode)
    if canvas:
        spec = spec.model_copy(update={"mode": "mix", "canvas": canvas, "audio_profile": audio_profile})
    record(recorded.pipeline(spec, slice_seconds=slice_seconds), list(people), until)
    slices: dict[str, list[Slice]] = defaultdict(list)
    for item in recorded.slices:
        assert item.playlist
        slices[item.playlist].append(item)
    folder = recorded.path(recorded.slices[0]).parent
    for name, items in slices.items():
        (folder / name).write_text(render(items, ended=True, correct_extinf=False))
    if stream_mode == "standard":
        _write_merged(folder, slices)
    return Folder(folder, slices)


def brightness(path: Path, moments: Sequence[float]) -> list[float]:
    """Mean luma of what is seen at these seconds."""
    frames = [(at, float(measure.luma_of(frame).mean())) for at, frame in measure.video_frames(path)]
    return [[mean for at, mean in frames if at <= moment][-1] for moment in moments]


def _write_merged(folder: Path, slices: dict[str, list[Slice]]) -> None:
    for stem in {name.rpartition("_")[0] for name in slices}:
        video, audio = slices.get(f"{stem}_video.m3u8", []), slices.get(f"{stem}_audio.m3u8", [])
        webm = [[item for item in items if item.name.endswith(".webm")] for items in (video, audio)]
        if any(webm):
            (folder / f"{stem}_av.mpd").write_text(merged.mpd(*webm, ended=True))
        else:
            (folder / f"{stem}_av.m3u8").write_text(merged.multivariant(video, audio))
