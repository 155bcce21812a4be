"""Individual recording: each participant's video as it was sent, and each one's sound as AAC or, where the mode wants it, as it was sent.

Nothing is mixed, so nothing waits: a frame is written when it arrives. A participant who stops sending keeps the slice open for
as long as a return would continue it.
"""

import contextlib
import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from recorder.frames import Codec, EncodedFrame, Track
from recorder.media import opus
from recorder.media.decode import OPUS_DELAY_NS
from recorder.media.encode import RATE, AudioEncoder, Packet
from recorder.outputs.track import AudioTrackOutput, SoundForm, VideoTrackOutput
from recorder.spec import Subscription
from recorder.worker.laying import Chunk
from recorder.worker.looks import Hearing
from recorder.worker.pipeline import NEVER, Input, Stopped, Surroundings
from recorder.worker.snapshots import Snapshots
from recorder.worker.sound import Sound

SECOND = 1_000_000_000
RETURN_SECONDS = 15  # a stream that comes back within this time continues its recording segment
ASK_KEYFRAME_NS = SECOND
HOLD_NS = 2 * SECOND  # of the first sound, for the first picture to come
ON_THE_WAY_NS = SECOND  # packets that were sent before a mute come within it
_AAC_PROFILE = 0
_CHANNELS = 1


class Individual:
    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._shelf = around.shelf()
        self._wanted = around.spec.subscription
        self._wanted_since_ns = 0
        self._videos: dict[int, _VideoTrack] = {}
        self._voices: dict[int, _VoiceTrack] = {}
        self._held: dict[int, list[tuple[EncodedFrame, int]]] = {}  # sound that waits to know its form, with its arrival
        self._hearing = Hearing(around.alarm)
        self._shots = Snapshots(around, self._shelf) if around.spec.snapshots and around.spec.video else None

    def take(self, item: Input, now_ns: int) -> None:
        if self._shots:
            self._shots.take(item, now_ns)
        if not self._around.spec.files:
            return
        if isinstance(item, Subscription):
            self._wanted, self._wanted_since_ns = item, now_ns
        elif isinstance(item, EncodedFrame):
            if self._is_unwanted(item):
                return
            if item.track.kind == "video" and self._around.spec.video:
                self._video(item.track.uid).write(item, now_ns)
                self._release(item.track.uid)
            elif item.track.kind == "audio" and self._around.spec.audio:
                self._sound(item, now_ns)
        elif isinstance(item, Stopped):
            tracks = self._videos if item.track.kind == "video" else self._voices
            if item.track.uid in tracks:
                tracks[item.track.uid].stop(now_ns)

    def advance(self, now_ns: int) -> None:
        for uid, held in list(self._held.items()):
            if now_ns - held[0][1] > HOLD_NS:
                self._release(uid)
        for track in self._tracks():
            track.expire(now_ns)
        if self._shots:
            self._shots.advance(now_ns)

    def due_ns(self) -> int:
        return NEVER  # whatever is due can wait for the next wake-up

    def behind(self, late_ns: int, now_ns: int) -> None:
        pass  # there is nothing to leave out

    def close(self, now_ns: int) -> None:
        with contextlib.ExitStack() as all_of_them:  # also when one of them fails
            if self._shots:
                all_of_them.callback(self._shots.close, now_ns)
            for uid in list(self._held):
                self._release(uid)
            for track in self._tracks():
                all_of_them.callback(track.close)

    def _is_unwanted(self, frame: EncodedFrame) -> bool:
        """It was captured after its subscription ended, and was on its way."""
        rule = self._wanted.video if frame.track.kind == "video" else self._wanted.audio
        return frame.time_ns >= self._wanted_since_ns and not rule.admits(frame.track.uid)

    def _tracks(self) -> Iterator["_VideoTrack | _VoiceTrack"]:
        return itertools.chain(self._videos.values(), self._voices.values())

    def _video(self, uid: int) -> "_VideoTrack":
        if uid not in self._videos:
            output = VideoTrackOutput(self._shelf, uid, slice_seconds=self._around.settings.slice_seconds, merged=self._merged)
            self._videos[uid] = _VideoTrack(self._around, Track(uid, "video"), output)
        return self._videos[uid]

    def _sound(self, frame: EncodedFrame, now_ns: int) -> None:
        """In `standard` the sound of who sends WebM's video goes into WebM too: at first it waits for a picture to show which it is."""
        uid = frame.track.uid
        if uid in self._held or (self._merged and self._around.spec.video and uid not in self._voices and uid not in self._videos):
            self._held.setdefault(uid, []).append((frame, now_ns))
        else:
            self._write_sound(frame, now_ns)

    def _release(self, uid: int) -> None:
        for frame, arrived_ns in self._held.pop(uid, ()):
            self._write_sound(frame, arrived_ns)

    def _write_sound(self, frame: EncodedFrame, now_ns: int) -> None:
        uid = frame.track.uid
        if uid not in self._voices:
            output = AudioTrackOutput(self._shelf, uid, slice_seconds=self._around.settings.slice_seconds, merged=self._merged)
            self._voices[uid] = _VoiceTrack(self._around, output, self._hearing)
        self._voices[uid].write(frame, self._form(frame), now_ns)

    def _form(self, frame: EncodedFrame) -> SoundForm:
        """Opus stays as it is where the mode wants it so; other sound can stand in neither container, and becomes AAC."""
        if frame.codec == "opus":
            video = self._videos.get(frame.track.uid)
            if self._around.spec.stream_mode == "original":
                return "opus_in_ts"
            if self._merged and video and video.codec in ("vp8", "vp9", "av1"):
                return "opus_in_webm"
        return "aac"

    @property
    def _merged(self) -> bool:
        return self._around.spec.stream_mode == "standard"


class _VideoTrack:
    def __init__(self, around: Surroundings, track: Track, output: VideoTrackOutput) -> None:
        self.codec: Codec | None = None  # of the newest frame
        self._around = around
        self._track = track
        self._output = output
        self._asked_ns = -ASK_KEYFRAME_NS
        self._written_ns: int | None = None  # the last frame's arrival; None: the slice is closed

    def write(self, frame: EncodedFrame, now_ns: int) -> None:
        self.codec = frame.codec
        self._written_ns = now_ns
        self._around.tell(self._output.write(frame))
        if self._output.wants_keyframe and now_ns - self._asked_ns >= ASK_KEYFRAME_NS:
            self._asked_ns = now_ns
            self._around.request_keyframe(self._track)

    def stop(self, now_ns: int) -> None:  # it is where the last frame was, not when the news came
        self._around.tell(self._output.interrupt())

    def expire(self, now_ns: int) -> None:
        if self._written_ns is not None and now_ns - self._written_ns > RETURN_SECONDS * SECOND:
            self._written_ns = None
            self.stop(now_ns)

    def close(self) -> None:
        self._around.tell(self._output.close())


class _VoiceTrack:
    """Sound as AAC, with short absences filled by silence, or as it was sent; a long absence ends the segment."""

    def __init__(self, around: Surroundings, output: AudioTrackOutput, hearing: Hearing) -> None:
        self._around = around
        self._output = output
        self._hearing = hearing
        self._sound: Sound | None = None  # with its decoder; None: nobody speaks
        self._encoder: AudioEncoder | None = None
        self._end = 0  # sample up to which the encoder has been fed
        self._written_ns: int | None = None  # the last packet's arrival; None: the segment is ended
        self._stopped_ns: int | None = None  # of sound as it was sent: later sound begins a new slice

    def write(self, frame: EncodedFrame, form: SoundForm, now_ns: int) -> None:
        self._written_ns = now_ns
        if form != self._output.form:
            self._end_sound()
            self._flush()
            self._around.tell(self._output.change(form))
        if form == "aac":
            if self._sound is None:
                self._sound = Sound(_CHANNELS, 0)
            self._lay_all(self._sound.place(frame))
        else:
            self._write_as_sent(frame)

    def stop(self, now_ns: int) -> None:
        """The sender muted, or left: `original` ends the slice for it, but for packets that are still on their way."""
        if self._output.form == "opus_in_ts" and self._written_ns is not None and self._stopped_ns is None:
            self._stopped_ns = now_ns

    def expire(self, now_ns: int) -> None:
        if self._stopped_ns is not None and now_ns - self._stopped_ns > ON_THE_WAY_NS:
            self._stopped_ns = self._written_ns = None
            self._end_segment()
        # Not by the event of a mute: packets still on their way when it came would begin to wait anew, for ever.
        if self._written_ns is not None and now_ns - self._written_ns > RETURN_SECONDS * SECOND:
            self._written_ns = None
            self._end_sound()
            self._end_segment()

    def close(self) -> None:
        self._end_sound()
        self._flush()
        self._around.tell(self._output.close())

    def _write_as_sent(self, frame: EncodedFrame) -> None:
        if not frame.payload:
            return
        time_ns = frame.time_ns - OPUS_DELAY_NS
        if self._stopped_ns is not None and time_ns > self._stopped_ns:
            self._stopped_ns = None
            self._end_segment()
        self._around.tell(self._output.write(frame.payload, time_ns, opus.duration_ns(frame.payload)))

    def _end_sound(self) -> None:
        sound, self._sound = self._sound, None
        if sound:
            self._lay_all(sound.end())

    def _lay_all(self, chunks: Iterable[Chunk]) -> None:
        for chunk in chunks:
            self._lay(chunk)

    def _lay(self, chunk: Chunk) -> None:
        if self._encoder and chunk.start - self._end > RETURN_SECONDS * RATE:
            self._end_segment()
        if self._encoder is None:
            self._encoder = AudioEncoder(_AAC_PROFILE, start=chunk.start)
            self._end = chunk.start
        samples = chunk.samples
        if chunk.start > self._end:
            samples = np.concatenate((np.zeros((_CHANNELS, chunk.start - self._end), np.float32), samples), axis=1)
        self._end = chunk.start + chunk.samples.shape[1]
        self._hearing.hear(chunk.samples, self._end * SECOND // RATE)
        self._write(self._encoder.encode(samples))

    def _end_segment(self) -> None:
        self._flush()
        self._around.tell(self._output.interrupt())

    def _flush(self) -> None:
        if self._encoder:
            self._write(self._encoder.flush())
            self._encoder = None

    def _write(self, packets: list[Packet]) -> None:
        for packet in packets:
            self._around.tell(self._output.write(packet.data, packet.pts * SECOND // RATE))
