"""Individual recording: one playlist and its slices per participant and kind, video as it was sent.

`interrupt` is called when the participant mutes or leaves. Media that returns within 15 s continues its recording
segment, later media begins a new one. Every method returns the products that became ready.
"""

import statistics
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from av.error import InvalidDataError

from recorder.frames import Codec, EncodedFrame, Track
from recorder.outputs import GAP_NS, Closed, Draft, Product, Shelf
from recorder.outputs.h264 import DecodeClock, ParameterSets
from recorder.outputs.mux import AAC_FRAME_NS, TsFile, WebmFile
from recorder.outputs.playlist import rotate, track_event
from recorder.protocol import File

_SECOND_NS = 1_000_000_000
_SEGMENT_GAP_NS = 15 * _SECOND_NS
_FORCED_CUT_NS = 330 * _SECOND_NS  # H.264 only, as is the next: a slice ends some time even if no keyframe comes
_FORCED_CUT_BYTES = 50_000_000
_USUAL_FRAME_NS = _SECOND_NS // 15  # until two frames have come

_Cut = Literal["age", "size", "codec", "forced"]


@dataclass(slots=True)
class _VideoSlice:
    draft: Draft
    file: TsFile | WebmFile
    codec: Codec
    size: tuple[int, int]
    frames: int = 0


class VideoTrackOutput:
    """The video of one participant: H.264 into TS, VP8, VP9 and AV1 into WebM."""

    def __init__(self, shelf: Shelf, uid: int, *, slice_seconds: float = 15.0, merged: bool = False) -> None:
        self.dropped = 0  # frames: empty, before a keyframe, or refused by the muxer
        self._shelf = shelf
        self._list = _TrackList(shelf, Track(uid, "video"), merged=merged)
        self._slice_ns = round(slice_seconds * _SECOND_NS)
        self._slice: _VideoSlice | None = None
        self._newest_ns = 0  # in the open slice
        self._intervals: deque[int] = deque(maxlen=31)
        self._size = (0, 0)
        self._told: tuple[int, int, int] | None = None  # width, height and rotation in the last tag
        self._rotations: list[str] = []  # tags for the next slice
        self._clock = DecodeClock()
        self._sets = ParameterSets()

    @property
    def wants_keyframe(self) -> bool:
        """The frame written last waits for a keyframe: to begin a slice, or because its slice is old enough to end."""
        return self._slice is None or self._newest_ns - self._slice.draft.start_ns >= self._slice_ns

    def write(self, frame: EncodedFrame) -> list[Product]:
        if not frame.payload:
            self.dropped += 1
            return []
        if frame.width and frame.height:
            self._size = (frame.width, frame.height)
        if frame.codec == "h264":
            self._sets.observe(frame.payload)
        products: list[Product] = []
        if self._slice and frame.time_ns - self._newest_ns > _SEGMENT_GAP_NS:
            products += self.interrupt()
        elif self._slice and self._stood_still(frame):
            hole = (self._end_ns, frame.time_ns)
            self._slice.draft = replace(self._slice.draft, holes=(*self._slice.draft.holes, hole))
            self._shelf.revise(self._slice.draft)
        cut = self._cut(frame)
        if cut:
            products += self._finish(frame.time_ns if frame.keyframe or cut == "forced" else self._end_ns)
            self._list.discontinuity |= cut in ("size", "codec")
            if cut == "codec":
                self._told = None  # the merged list of the new codec knows no size yet
        if not self._slice:
            if not self._may_begin(frame, cut):
                self.dropped += 1
                return products
            products += self._begin(frame)
        self._put(frame)
        return products

    def interrupt(self) -> list[Product]:
        """The stream stopped; whatever comes next begins a new slice with a keyframe."""
        products = self._finish(self._end_ns)
        self._list.discontinuity = True
        return products

    def close(self) -> list[Product]:
        """Commit what is left."""
        if self._slice and self._rotations:  # there is no next slice that could carry them
            self._slice.draft = replace(self._slice.draft, tags=(*self._slice.draft.tags, *self._rotations))
        return self._finish(self._end_ns)

    @property
    def _end_ns(self) -> int:
        return self._newest_ns + (statistics.median_low(self._intervals) if self._intervals else _USUAL_FRAME_NS)

    def _stood_still(self, frame: EncodedFrame) -> bool:
        """Nothing came for longer than this sender usually takes from one frame to the next."""
        return frame.time_ns - self._newest_ns > max(GAP_NS, 3 * (self._end_ns - self._newest_ns))

    def _cut(self, frame: EncodedFrame) -> _Cut | None:
        current = self._slice
        if not current:
            return None
        age_ns = frame.time_ns - current.draft.start_ns
        if frame.codec != current.codec:
            return "codec"
        if frame.keyframe and self._size != current.size:
            return "size"
        if frame.keyframe and age_ns >= self._slice_ns:
            return "age"
        if isinstance(current.file, TsFile) and (age_ns >= _FORCED_CUT_NS or current.file.size >= _FORCED_CUT_BYTES):
            return "forced"
        return None

    def _may_begin(self, frame: EncodedFrame, cut: _Cut | None) -> bool:
        if frame.codec == "h264":
            return frame.keyframe or cut == "forced"
        return frame.keyframe and self._size != (0, 0)  # a WebM header states the size

    def _begin(self, frame: EncodedFrame) -> list[Product]:
        told = (*self._size, frame.rotation)
        tags = [*self._rotations]
        if told != self._told or self._list.is_new_segment(frame.time_ns):
            tags.append(rotate(*told, self._shelf.utc_ms(frame.time_ns)))
        self._told, self._rotations = told, []
        draft, products = self._list.begin(frame.time_ns, "ts" if frame.codec == "h264" else "webm", tags)
        file = _create(self._shelf.open(draft), frame.codec, self._size)
        self._slice = _VideoSlice(draft, file, frame.codec, self._size)
        self._newest_ns = frame.time_ns
        return products

    def _put(self, frame: EncodedFrame) -> None:
        current = self._slice
        assert current
        told = (*self._size, frame.rotation)
        if told != self._told:
            self._rotations.append(rotate(*told, self._shelf.utc_ms(frame.time_ns)))
            self._told = told
        if frame.time_ns > self._newest_ns:
            self._intervals.append(frame.time_ns - self._newest_ns)
            self._newest_ns = frame.time_ns
        try:
            if isinstance(current.file, TsFile):
                payload = frame.payload if current.frames or not frame.keyframe else self._sets.complete(frame.payload)
                current.file.write_video(payload, *self._clock.place(frame.time_ns), keyframe=frame.keyframe)
            else:
                since_ns = frame.time_ns - current.draft.start_ns
                current.file.write(frame.payload, since_ns, keyframe=frame.keyframe, duration_ns=self._end_ns - self._newest_ns)
            current.frames += 1
        except InvalidDataError:
            self.dropped += 1

    def _finish(self, end_ns: int) -> list[Product]:
        if not self._slice:
            return []
        current, self._slice = self._slice, None
        current.file.close()
        if current.frames:
            return [self._list.close(current.draft, end_ns)]
        self._shelf.discard(current.draft)
        self._told = None
        return []


def _create(path: Path, codec: Codec, size: tuple[int, int]) -> TsFile | WebmFile:
    match codec:
        case "h264":
            return TsFile(path, video=True, audio=None)
        case "vp8" | "vp9" | "av1":
            return WebmFile(path, codec, width=size[0], height=size[1])
        case _:
            raise ValueError(f"{codec} is not video")


SoundForm = Literal["aac", "opus_in_ts", "opus_in_webm"]


class AudioTrackOutput:
    """The sound of one participant, into slices of one form at a time: AAC frames in ADTS form, or Opus packets as they were sent."""

    def __init__(self, shelf: Shelf, uid: int, *, slice_seconds: float = 15.0, merged: bool = False) -> None:
        self.form: SoundForm = "aac"
        self._shelf = shelf
        self._list = _TrackList(shelf, Track(uid, "audio"), merged=merged)
        self._slice_ns = round(slice_seconds * _SECOND_NS)
        self._slice: tuple[Draft, TsFile | WebmFile] | None = None
        self._end_ns = 0  # of the sound in the open slice

    def change(self, form: SoundForm) -> list[Product]:
        """What comes next has another form."""
        products = self.interrupt() if self._slice else []
        self.form = form
        return products

    def write(self, data: bytes, time_ns: int, duration_ns: int = AAC_FRAME_NS) -> list[Product]:
        """`time_ns` is that of the first sample that the frame decodes to."""
        products: list[Product] = []
        if self._slice and time_ns - self._end_ns > _SEGMENT_GAP_NS:
            products += self.interrupt()
        if self._slice and time_ns - self._slice[0].start_ns >= self._slice_ns:
            products += self._finish(time_ns)
        if not self._slice:
            draft, opened = self._list.begin(time_ns, "webm" if self.form == "opus_in_webm" else "ts", [])
            self._slice = draft, self._create(self._shelf.open(draft))
            products += opened
        draft, file = self._slice
        if isinstance(file, TsFile):
            file.write_audio(data, time_ns, duration_ns)
        else:
            file.write(data, time_ns - draft.start_ns, keyframe=True, duration_ns=duration_ns)
        self._end_ns = time_ns + duration_ns
        return products

    def interrupt(self) -> list[Product]:
        """The stream stopped; whatever comes next begins a new slice."""
        products = self._finish(self._end_ns)
        self._list.discontinuity = True
        return products

    def close(self) -> list[Product]:
        """Commit what is left."""
        return self._finish(self._end_ns)

    def _create(self, path: Path) -> TsFile | WebmFile:
        if self.form == "opus_in_webm":
            return WebmFile(path, "opus")
        return TsFile(path, video=False, audio="opus" if self.form == "opus_in_ts" else "aac")

    def _finish(self, end_ns: int) -> list[Product]:
        if not self._slice:
            return []
        (draft, file), self._slice = self._slice, None
        file.close()
        return [self._list.close(draft, end_ns)]


class _TrackList:
    """The playlist of one track: what is told once, at each segment, and after each interruption.

    `merged`: the participant's merged list is told too; both of its tracks may tell it.
    """

    def __init__(self, shelf: Shelf, track: Track, *, merged: bool) -> None:
        self.discontinuity = True  # of the slice that begins next
        self._shelf = shelf
        self._track = track
        self._name = shelf.names.track_playlist(track)
        self._merged = merged
        self._announced: set[str] = set()
        self._ended_ns: int | None = None  # the last committed slice

    def is_new_segment(self, start_ns: int) -> bool:
        return self._ended_ns is None or start_ns - self._ended_ns > _SEGMENT_GAP_NS

    def begin(self, start_ns: int, suffix: Literal["ts", "webm"], tags: list[str]) -> tuple[Draft, list[Product]]:
        start_ms = self._shelf.start_ms(self._name, start_ns)
        if self.is_new_segment(start_ns):
            tags = [*tags, track_event(self._track.kind, start_ms)]
        name = self._shelf.names.track_slice(self._track, start_ms, suffix)
        draft = Draft(name, self._name, start_ns, start_ms, self.discontinuity, tuple(tags))
        lists = [(self._name, False)]
        if self._merged:
            lists.append((self._shelf.names.merged_playlist(self._track.uid, "m3u8" if suffix == "ts" else "mpd"), True))
        new = [(list_name, merged) for list_name, merged in lists if list_name not in self._announced]
        self._announced.update(list_name for list_name, _ in new)
        return draft, [
            File(
                name=list_name,
                track="audio_and_video" if merged else self._track.kind,
                uid=self._track.uid,
                mixed=False,
                playable=suffix == "ts",
                start_ms=start_ms,
            )
            for list_name, merged in new
        ]

    def close(self, draft: Draft, end_ns: int) -> Closed:
        self.discontinuity = False
        self._ended_ns = max(end_ns, draft.start_ns)
        return self._shelf.close(draft, self._ended_ns - draft.start_ns)
