"""Says whether the demo's recordings are good: every promise is one named check, every file one row.

Knows the story of `session.py` and what files a recording is to leave; measures by `recorder.tools.measure`.
"""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cli.demo.files import Playlist, begins_with_keyframe, index_in_front, read_playlist, started_at
from cli.demo.screening import SCENES, UIDS, Screening, middle_ms, screen
from cli.demo.session import AUDIO_ONLY, CHANNEL, FPS, LATE, LEAVER, Recording, Take
from recorder.tools.content import tone_hz
from recorder.tools.measure import Probe, beep_onsets, decode_errors, flash_onsets, offsets, probe

START_SECONDS = 5.0  # from the answer to start to the first media; the bar of the bench is lower, this runs on any machine
RECORDING = 5  # status of query
DURATION_SECONDS = 0.5  # composite, against the recorded time
FRAMES_SHARE = 0.95
SYNC_SECONDS = 0.040
PRESENCE_SECONDS = 3.0  # joining takes that long at most, and so does the layout that follows it
UNEXPLAINED_SECONDS = 3.0
HEARD_SHARE = 0.8

_TRACKS = (
    (LEAVER, "video", "h264"),
    (LEAVER, "audio", "aac"),
    (LATE, "video", "vp8"),
    (LATE, "audio", "aac"),
    (AUDIO_ONLY, "audio", "aac"),
)


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class FileReport:
    path: Path
    kind: str  # "playlist", "slice", "mp4"
    track: str  # "composite", "101 video", …
    codecs: tuple[str, ...]
    width: int
    height: int
    fps: float
    size: int
    duration: float
    av_offset_ms: float | None  # flash minus beep, median; None: the file has not both


@dataclass(frozen=True, slots=True)
class Verdict:
    files: list[FileReport]
    checks: list[Check]

    @property
    def ok(self) -> bool:
        return bool(self.checks) and all(check.ok for check in self.checks)


def judge(take: Take) -> Verdict:
    """Look at every file of the take."""
    files: list[FileReport] = []
    checks: list[Check] = []
    with tempfile.TemporaryDirectory() as folder:
        for recording in take.recordings:
            left = sorted(path for path in (recording.folder / recording.mode).iterdir() if path.is_file())
            lists = [read_playlist(path) for path in left if path.suffix == ".m3u8"]
            checks += _course(recording)
            checks += _structure(recording, left, lists)
            one = _composite if recording.mode == "mix" else _individual
            found = one(take, recording, lists, Path(folder))
            files += found.files
            checks += found.checks
    return Verdict(files, checks)


def _course(recording: Recording) -> Iterator[Check]:
    wait = (recording.started_ms - recording.asked_ms) / 1000
    yield Check(f"{recording.mode}: recording begins soon after start", wait <= START_SECONDS and recording.started_ms > 0, f"{wait:.1f} s")
    seen = ", ".join(map(str, sorted(recording.statuses)))
    yield Check(f"{recording.mode}: query says that it is recording", RECORDING in recording.statuses, f"status {seen}")


def _structure(recording: Recording, left: list[Path], lists: list[Playlist]) -> Iterator[Check]:
    mode = recording.mode
    listed = {path for one in lists for path in (one.path, *one.slices)}
    mp4s = [path for path in left if path.suffix == ".mp4"]
    stray = sorted(path.name for path in set(left) ^ (listed | set(mp4s)) if path.suffix != ".json")
    yield Check(f"{mode}: playlists list exactly the files that are stored", not stray, ", ".join(stray) or f"{len(left)} files")
    announced = set(recording.files)
    stored = {f"{mode}/{path.name}" for path in (*(one.path for one in lists), *mp4s)}
    yield Check(f"{mode}: the answer to stop names what is stored", announced == stored, f"{len(announced)} named")
    still_open = [one.path.name for one in lists if not one.ended]
    yield Check(f"{mode}: playlists are closed", bool(lists) and not still_open, ", ".join(still_open) or f"{len(lists)} with ENDLIST")
    slices = [path for one in lists for path in one.slices if path.exists()]
    bad = [path.name for path in slices if not begins_with_keyframe(path)]
    yield Check(f"{mode}: slices begin with a keyframe", bool(slices) and not bad, ", ".join(bad) or f"{len(slices)} slices")
    groups = [group for one in lists for group in ([one.slices] if one.packed else [(path,) for path in one.slices])]
    errors = [error for group in (*groups, *((path,) for path in mp4s)) if all(map(Path.exists, group)) for error in decode_errors(group)]
    yield Check(f"{mode}: everything decodes without an error", bool(groups) and not errors, "; ".join(errors[:3]) or f"{len(left)} files")


# ---- composite ---------------------------------------------------------------------------------------------------


def _composite(take: Take, recording: Recording, lists: list[Playlist], folder: Path) -> Verdict:
    mp4s = sorted((recording.folder / recording.mode).glob("*.mp4"))
    recorded = (take.stopped_ms - recording.started_ms) / 1000
    checks = [Check("mix: one playlist and one MP4", len(lists) == len(mp4s) == 1, f"{len(lists)} and {len(mp4s)}")]
    if not checks[0].ok:
        return Verdict([], checks)
    joined = _join(lists[0].slices, folder / "composite.ts")
    files: list[FileReport] = []
    for name, path, shown in (("HLS", joined, lists[0].path), ("MP4", mp4s[0], mp4s[0])):
        found, seen = probe(path), screen(path)
        kind = "playlist" if name == "HLS" else "mp4"
        files.append(_report(shown, kind, "composite", found, middle_ms(seen.av_offsets(UIDS))))
        checks += _lengths(name, found, recorded)
        checks += _seen(name, take, recording, seen)
        checks += _heard(name, take, recording, seen, recorded)
        checks.append(_in_sync(f"mix {name}", seen.av_offsets(UIDS), recorded))
        if name == "HLS":
            files += [_composite_slice(path, seen) for path in lists[0].slices]
    length = lists[0].seconds
    checks.append(Check("mix: the playlist is as long as the recording", abs(length - recorded) <= DURATION_SECONDS, f"{length:.2f} s"))
    front = [path.name for path in mp4s if not index_in_front(path)]
    checks.append(Check("mix: the MP4 has its index in front", not front, ", ".join(front) or "moov before mdat"))
    return Verdict(files, checks)


def _lengths(name: str, found: Probe, recorded: float) -> Iterator[Check]:
    video = found.stream("video")
    frames, expected = video.frames if video else 0, recorded * FPS
    detail = f"{found.duration:.2f} s of {recorded:.2f} s recorded"
    yield Check(f"mix {name}: as long as the recording", abs(found.duration - recorded) <= DURATION_SECONDS, detail)
    yield Check(f"mix {name}: frames are complete", frames >= FRAMES_SHARE * expected, f"{frames} of {expected:.0f}")
    yield Check(f"mix {name}: H.264 and AAC", {stream.codec for stream in found.streams} == {"h264", "aac"}, str(len(found.streams)))


def _seen(name: str, take: Take, recording: Recording, seen: Screening) -> Iterator[Check]:
    story = seen.story()
    told = " → ".join(f"{scene} {start - seen.start:.1f}–{end - seen.start:.1f} s" for scene, start, end in story)
    yield Check(f"mix {name}: each in its tile, the late one appears, the early one goes", tuple(s for s, _, _ in story) == SCENES, told)
    begins = {scene: start - seen.start for scene, start, _ in story}
    for uid, scene, moments in ((LATE, "all", take.joined_ms), (LEAVER, "after", take.left_ms)):
        wanted = (moments.get(uid, 0) - recording.started_ms) / 1000
        at = begins.get(scene, float("inf"))
        detail = f"{at:.1f} s, in the channel at {wanted:.1f} s"
        yield Check(f"mix {name}: the picture follows the channel when {uid} {_VERBS[scene]}", abs(at - wanted) <= PRESENCE_SECONDS, detail)
    length = seen.scenes[-1][0] - seen.start if seen.scenes else 0.0
    unknown = seen.unexplained() * length
    yield Check(f"mix {name}: no strange pictures", bool(seen.scenes) and unknown <= UNEXPLAINED_SECONDS, f"{unknown:.1f} s in transitions")


_VERBS = {"all": "joins", "after": "leaves"}


def _heard(name: str, take: Take, recording: Recording, seen: Screening, recorded: float) -> Iterator[Check]:
    for uid in UIDS:
        first, last = _presence(take, recording, uid)
        beeps = [beep - seen.start for beep in seen.beeps[uid]]
        inside = [beep for beep in beeps if first - PRESENCE_SECONDS <= beep <= last + 1]
        wanted = HEARD_SHARE * (min(last, recorded) - first - 1)
        detail = f"{len(inside)} beeps, {len(beeps) - len(inside)} out of place"
        yield Check(f"mix {name}: {uid} is heard while it is there", len(inside) >= max(1, wanted) and len(inside) == len(beeps), detail)


def _composite_slice(path: Path, seen: Screening) -> FileReport:
    found = probe(path)
    start = min(stream.start for stream in found.streams)
    return _report(path, "slice", "composite", found, middle_ms(seen.av_offsets(UIDS, start, start + found.duration)))


# ---- individual --------------------------------------------------------------------------------------------------


def _individual(take: Take, recording: Recording, lists: list[Playlist], folder: Path) -> Verdict:
    by_name = {one.path.name: one for one in lists}
    names = {(uid, kind): f"{recording.sid}_{CHANNEL}__uid_s_{uid}__uid_e_{kind}.m3u8" for uid, kind, _ in _TRACKS}
    wrong = sorted(by_name.keys() ^ set(names.values()))
    checks = [Check("individual: a playlist for each track and no other", not wrong, ", ".join(wrong) or f"{len(lists)} playlists")]
    if wrong:
        return Verdict([], checks)
    pieces = {key: _pieces(by_name[name], folder) for key, name in names.items()}
    files: list[FileReport] = []
    for uid, kind, codec in _TRACKS:
        one = by_name[names[uid, kind]]
        found = probe(pieces[uid, kind][0][1])
        offset = None
        if kind == "video":
            measured = _offsets_of(uid, pieces[uid, "video"], pieces[uid, "audio"])
            offset = middle_ms(measured)
            checks.append(_in_sync(f"individual {uid}", measured, one.seconds))
        track = f"{uid} {kind}"
        files.append(_report(one.path, "playlist", track, found, offset, duration=one.seconds))
        files += [_report(path, "slice", track, probe(path), None) for path in one.slices]
        codecs = {stream.codec for path in one.slices for stream in probe(path).streams}
        checks.append(Check(f"individual {track}: {codec}", codecs == {codec}, ", ".join(sorted(codecs))))
        first, last = _presence(take, recording, uid)
        detail = f"{one.seconds:.1f} s of {last - first:.1f} s in the channel"
        checks.append(Check(f"individual {track}: as long as it was there", abs(one.seconds - (last - first)) <= PRESENCE_SECONDS, detail))
    return Verdict(files, checks)


def _pieces(one: Playlist, folder: Path) -> list[tuple[float, Path]]:
    """Files to be measured, each with what turns its presentation times into Unix time."""
    paths = [(one.slices[0], _join(one.slices, folder / f"{one.path.stem}.ts"))] if one.packed else [(path, path) for path in one.slices]
    return [(started_at(first) - min(stream.start for stream in probe(first).streams), whole) for first, whole in paths]


def _offsets_of(uid: int, video: list[tuple[float, Path]], audio: list[tuple[float, Path]]) -> list[float]:
    flashes = [base + time for base, path in video for time in flash_onsets(path)]
    beeps = [base + time for base, path in audio for time in beep_onsets(path, tone_hz(uid))]
    return offsets(flashes, beeps)


# ---- both --------------------------------------------------------------------------------------------------------


def _presence(take: Take, recording: Recording, uid: int) -> tuple[float, float]:
    """When the participant was in the channel, seconds of the recording."""
    first = max(take.joined_ms[uid], recording.started_ms)
    last = take.left_ms.get(uid, take.stopped_ms)
    return (first - recording.started_ms) / 1000, (last - recording.started_ms) / 1000


def _in_sync(what: str, found: list[float], seconds: float) -> Check:
    middle = middle_ms(found)
    enough = len(found) >= max(1, seconds / 2)
    detail = f"median {middle} ms over {len(found)} flashes"
    return Check(f"{what}: picture and sound within 40 ms", enough and middle is not None and abs(middle) <= SYNC_SECONDS * 1000, detail)


def _join(slices: Iterable[Path], target: Path) -> Path:
    with target.open("wb") as file:
        for path in slices:
            file.write(path.read_bytes())
    return target


def _report(path: Path, kind: str, track: str, found: Probe, av_offset_ms: float | None, *, duration: float | None = None) -> FileReport:
    video = found.stream("video")
    return FileReport(
        path=path,
        kind=kind,
        track=track,
        codecs=tuple(stream.codec for stream in found.streams),
        width=video.width if video else 0,
        height=video.height if video else 0,
        fps=round(video.fps, 2) if video else 0.0,
        size=path.stat().st_size,
        duration=round(found.duration if duration is None else duration, 3),
        av_offset_ms=av_offset_ms,
    )
