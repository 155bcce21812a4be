"""Composite recording: every participant on one canvas and in one mix, encoded once.

Output is made by the clock: picture n belongs to the time `start + n / fps` whatever came in, and shows of every participant the
picture nearest in capture time. It is made `latency_ms` after that time, sound alone a little later, so that media still on its way
is in it. A machine that cannot keep up makes fewer pictures, on the same grid; sound is always whole. Both are made a few at a
time: what is done in a row finds its code and tables in the processor's cache, and the thread wakes up less often.

Events have their place on the same timeline: the time they came. A layout shows from the first picture on whose time is not
before that, so with what people did at that moment, although that picture is made `latency_ms` later.
"""

from collections import defaultdict, deque
from collections.abc import Iterable

from mixer import layouts
from mixer.audio import AudioMixer
from mixer.canvas import Canvas
from mixer.compositor import Compositor
from mixer.fit import Rect
from mixer.picture import Picture
from recorder.frames import EncodedFrame, Track
from recorder.media.encode import FRAME_SAMPLES, AudioEncoder, Packet, open_encoder
from recorder.media.pictures import frame_of
from recorder.media.scale import Scaler
from recorder.outputs import Shelf, salvage
from recorder.outputs.hls import CompositeHls
from recorder.outputs.mp4 import CompositeMp4
from recorder.spec import Layout, Subscription
from recorder.worker.laying import RATE_HZ, Chunk
from recorder.worker.looks import Hearing, Looks
from recorder.worker.pace import Pace
from recorder.worker.pipeline import NEVER, Event, ImageLoaded, Input, Joined, Left, Started, Stopped, Surroundings, Thrift
from recorder.worker.scenery import Scenery
from recorder.worker.sight import Sight
from recorder.worker.sound import Sound

SECOND = 1_000_000_000
PICTURES_NS = SECOND // 15  # of output whose pictures are made together
SOUND_ALONE_NS = SECOND // 10  # that it is made later than sound with pictures, because its packets are read less often
SOUND_BLOCKS = 20  # of the encoder that are made together: 427 ms
STILL_NS = 7 * SECOND // 2  # so long the last picture stays before an image takes its place
ENCODER_LATE = 10006  # alarm: fewer pictures are made than were asked for


class Composite:
    def __init__(self, around: Surroundings) -> None:
        self._latency_ns = around.settings.latency_ms * 1_000_000 + (0 if around.spec.video else SOUND_ALONE_NS)
        self._start_ns: int | None = None  # of the first output picture and sample
        self._events: deque[tuple[int, Event]] = deque()  # not yet due on the output
        self._people: list[int] = []  # in join order, whether they are recorded or not
        self._subscription = around.spec.subscription  # as the output has it
        self._wanted = around.spec.subscription  # as it was set last
        self._wanted_since_ns = 0
        self._pictures = _Pictures(around) if around.spec.video else None
        self._voices = _Voices(around) if around.spec.audio else None
        self._files = _Files(around)

    def take(self, item: Input, now_ns: int) -> None:
        if isinstance(item, EncodedFrame):
            part = self._pictures if item.track.kind == "video" else self._voices
            if part is None or self._is_unwanted(item):
                return
            if self._start_ns is None:
                self._begin(item.time_ns)
            part.take(item)
        else:
            if isinstance(item, Subscription):
                self._wanted, self._wanted_since_ns = item, now_ns
            if self._start_ns is None:
                self._apply(item, now_ns)
            else:
                self._events.append((now_ns, item))

    def advance(self, now_ns: int) -> None:
        self._produce(now_ns - self._latency_ns)

    def due_ns(self) -> int:
        leading = self._pictures or self._voices
        return NEVER if self._start_ns is None or leading is None else leading.batch_ns() + self._latency_ns

    def behind(self, late_ns: int, now_ns: int) -> None:
        if self._pictures:
            self._pictures.pace.observe(late_ns, now_ns)

    @property
    def mixing_ns(self) -> int:
        """Time spent so far on scaling and drawing pictures and adding up sound: what there is to it besides the codecs."""
        return sum(part.mixing_ns for part in (self._pictures, self._voices) if part)

    def close(self, now_ns: int) -> None:
        try:
            until_ns = now_ns - 1  # a picture is shown from its time on: one at the very end would be shown for no time
            self._produce(until_ns)
            if self._start_ns is not None and self._voices:
                self._files.audio(self._voices.finish(until_ns), self._start_ns)
            if self._start_ns is not None and self._pictures:
                self._files.video(self._pictures.finish(), self._start_ns)
        finally:
            self._files.close()

    def _is_unwanted(self, frame: EncodedFrame) -> bool:
        """It was captured after its subscription ended, and was on its way."""
        rule = self._wanted.video if frame.track.kind == "video" else self._wanted.audio
        return frame.time_ns >= self._wanted_since_ns and not rule.admits(frame.track.uid)

    def _begin(self, start_ns: int) -> None:
        self._start_ns = start_ns
        for part in (self._pictures, self._voices):
            if part:
                part.begin(start_ns)

    def _next_ns(self) -> int:
        """When the next picture or batch of sound is complete, whichever is earlier."""
        return min(part.next_ns() for part in (self._pictures, self._voices) if part)

    def _produce(self, until_ns: int) -> None:
        while self._start_ns is not None and (due := self._next_ns()) <= until_ns:
            while self._events and self._events[0][0] <= due:
                time_ns, event = self._events.popleft()
                self._apply(event, time_ns)
            if self._voices and self._voices.next_ns() <= due:
                self._files.audio(self._voices.produce(), self._start_ns)
            else:
                assert self._pictures
                keyframe = self._files.wants_keyframe(self._pictures.next_ns())
                self._files.video(self._pictures.produce(keyframe), self._start_ns)

    def _apply(self, event: Event, time_ns: int) -> None:
        if isinstance(event, Joined) and event.uid not in self._people:
            self._people.append(event.uid)
        elif isinstance(event, Left) and event.uid in self._people:
            self._people.remove(event.uid)
            if self._voices:
                self._voices.forget(event.uid)
        elif isinstance(event, Subscription):
            self._subscription = event
        elif self._pictures:
            self._pictures.apply(event, time_ns)
        if self._pictures:
            shown = [uid for uid in self._people if self._is_recorded(uid)]
            self._pictures.arrange(shown, [uid for uid in shown if self._subscription.video.admits(uid)])

    def _is_recorded(self, uid: int) -> bool:
        """A place is for whom is seen or heard."""
        return bool((self._pictures and self._subscription.video.admits(uid)) or (self._voices and self._subscription.audio.admits(uid)))


class _Pictures:
    """From encoded frames of many to encoded frames of one canvas."""

    def __init__(self, around: Surroundings) -> None:
        spec = around.spec
        self._fps = spec.canvas.fps
        self._request_keyframe = around.request_keyframe
        self._canvas = Canvas(spec.canvas.width, spec.canvas.height)
        self._compositor = Compositor(self._canvas, Scaler)
        self._scenery = Scenery(self._compositor)
        self.pace = Pace(self._fps, lambda detail: around.warn(ENCODER_LATE, detail))
        self._bitrate_kbps = spec.canvas.bitrate_kbps
        self._encoder = open_encoder(
            name=around.settings.video_encoder,
            width=self._canvas.size.width,
            height=self._canvas.size.height,
            fps=self._fps,
            bitrate_kbps=self._bitrate_kbps,
        )
        self._frame = frame_of(self._canvas.planes)  # sees every drawing
        self._sights: dict[int, Sight] = {}
        self._drawn: dict[int, Picture | None] = {}
        self._looks: dict[int, Looks] = {}
        self._alarm = around.alarm
        self._number = 0  # of the next picture
        self._made = -1  # number of the last one that was not left out
        self._start_ns = 0
        self._set_layout(spec.layout)

    @property
    def mixing_ns(self) -> int:
        return self._compositor.spent_ns

    def begin(self, start_ns: int) -> None:
        self._start_ns = start_ns

    def take(self, frame: EncodedFrame) -> None:
        self._sight(frame.track.uid).take(frame)

    def next_ns(self) -> int:
        return self._start_ns + self._number * SECOND // self._fps

    def batch_ns(self) -> int:
        """When as many pictures are complete as are made together."""
        return self._start_ns + (self._number + max(PICTURES_NS * self._fps // SECOND, 1) - 1) * SECOND // self._fps

    def apply(self, event: Event, time_ns: int) -> None:
        """What concerns pictures alone."""
        if isinstance(event, Layout):
            self._set_layout(event)
        elif isinstance(event, ImageLoaded):
            self._scenery.add(event.url, event.picture)
        elif isinstance(event, Thrift):
            self._encoder.set_bitrate(self._bitrate_kbps // 2 if event.on else self._bitrate_kbps)
        elif isinstance(event, Started | Stopped) and event.track.kind == "video" and event.track.uid in self._sights:
            sight = self._sights[event.track.uid]
            sight.interrupt(time_ns) if isinstance(event, Stopped) else sight.resume()

    def _set_layout(self, layout: Layout) -> None:
        self._layout = layouts.load(layout.number)
        self._options = layouts.Options(
            max_resolution_uid=layout.max_resolution_uid,
            regions=tuple(layouts.Region(Rect(r.x, r.y, r.width, r.height), r.uid, r.alpha, r.fit) for r in layout.regions),
        )
        self._scenery.set_layout(layout)

    def arrange(self, people: list[int], watched: list[int]) -> None:
        """`people` are recorded, in join order; of those who are `watched` the video is."""
        for uid in [uid for uid in self._sights if uid not in people]:
            # Frames wait in it of somebody whose joining is not yet due on the output, for the first time or again.
            self._sights[uid].show(False)
            if self._sights[uid].is_empty:
                del self._sights[uid]
                self._drawn.pop(uid, None)
                self._looks.pop(uid, None)
                self._compositor.set_picture(uid, None)  # a region of a custom layout stays theirs
        placements = self._layout.place(people, self._canvas.size, self._options)
        self._compositor.arrange(placements)
        shown = {placement.uid for placement in placements}
        for uid in people:
            self._sight(uid).show(uid in shown and uid in watched)

    def produce(self, keyframe: bool) -> list[Packet]:
        """The next picture, unless it is one that is left out."""
        number = self._number
        self._number += 1
        return [] if number % self.pace.step and not keyframe else self._make(number, keyframe)

    def finish(self) -> list[Packet]:
        # The last picture is never left out: the recording would be shorter by it.
        last = self._make(self._number - 1, False) if self._made < self._number - 1 else []
        return last + self._encoder.flush()

    def _make(self, number: int, keyframe: bool) -> list[Packet]:
        now_ns = self._start_ns + number * SECOND // self._fps
        for uid, sight in self._sights.items():
            sight.latest(now_ns + SECOND // self._fps // 2)
            self._look_at(uid, sight, now_ns)
            replaced = sight.stopped_for(now_ns) >= STILL_NS and self._scenery.stands_in_for(uid)
            picture = None if replaced else sight.picture
            if picture is not self._drawn.get(uid):
                self._drawn[uid] = picture
                self._compositor.set_picture(uid, picture)
        self._compositor.draw()
        self._made = number
        return self._encoder.encode(self._frame, number, force_keyframe=keyframe)

    def _look_at(self, uid: int, sight: Sight, now_ns: int) -> None:
        if uid not in self._looks:
            self._looks[uid] = Looks(uid, self._alarm)
        self._looks[uid].see(sight.picture if sight.shown and sight.stopped_for(now_ns) == 0 else None, now_ns)

    def _sight(self, uid: int) -> Sight:
        if uid not in self._sights:
            self._sights[uid] = Sight(Track(uid, "video"), self._request_keyframe)
        return self._sights[uid]


class _Voices:
    """From encoded sound of many to encoded sound of one mix."""

    def __init__(self, around: Surroundings) -> None:
        self._channels = 2 if around.spec.audio_profile == 2 else 1
        self._mixer = AudioMixer(channels=self._channels)
        self._hearing = Hearing(around.alarm)
        self._heard_ns: int | None = None  # capture time of the newest frame
        self._encoder = AudioEncoder(around.spec.audio_profile)
        self._sounds: dict[int, Sound] = {}
        self._waiting: defaultdict[int, list[EncodedFrame]] = defaultdict(list)  # decoding one speaker's in a row takes half the time
        self._start_ns = 0

    @property
    def mixing_ns(self) -> int:
        return self._mixer.spent_ns

    def begin(self, start_ns: int) -> None:
        self._start_ns = start_ns

    def take(self, frame: EncodedFrame) -> None:
        self._heard_ns = max(frame.time_ns, self._heard_ns or frame.time_ns)
        self._waiting[frame.track.uid].append(frame)

    def forget(self, uid: int) -> None:
        self._decode()
        sound = self._sounds.pop(uid, None)
        if sound:
            self._write(uid, sound.end())
        self._mixer.forget(uid)

    def next_ns(self) -> int:
        return self._after(SOUND_BLOCKS)

    batch_ns = next_ns

    def _after(self, blocks: int) -> int:
        return self._start_ns + (self._mixer.position + blocks * FRAME_SAMPLES) * SECOND // RATE_HZ

    def produce(self) -> list[Packet]:
        self._decode()
        return self._mixed(SOUND_BLOCKS)

    def finish(self, until_ns: int) -> list[Packet]:
        """What is complete by then, and what is inside the encoder."""
        self._decode()
        packets = []
        while self._after(1) <= until_ns:
            packets += self._mixed(1)
        return packets + self._encoder.flush()

    def _mixed(self, blocks: int) -> list[Packet]:
        samples = blocks * FRAME_SAMPLES
        for uid, sound in self._sounds.items():
            self._write(uid, sound.release(self._mixer.position + samples))
        mixed = self._mixer.read(samples)
        if self._heard_ns is not None and self._heard_ns >= self._after(-blocks):  # somebody sends
            self._hearing.hear(mixed, self._after(0))
        return self._encoder.encode(mixed)

    def _decode(self) -> None:
        for uid, frames in self._waiting.items():
            if uid not in self._sounds:
                self._sounds[uid] = Sound(self._channels, self._start_ns)
            self._write(uid, self._sounds[uid].place(*frames))
        self._waiting.clear()

    def _write(self, uid: int, chunks: Iterable[Chunk]) -> None:
        for chunk in chunks:
            self._mixer.write(uid, chunk.start, chunk.samples)


class _Files:
    """HLS and, when asked for, MP4 of the same packets."""

    def __init__(self, around: Surroundings) -> None:
        spec = around.spec
        self._tell = around.tell
        self._finish_parts = around.finish_parts
        self._fps = spec.canvas.fps
        canvas = spec.canvas if spec.video else None
        shelf = around.shelf()
        self._hls = CompositeHls(shelf, canvas=canvas, audio=spec.audio, slice_seconds=around.settings.slice_seconds)
        self._mp4 = self._parts(around, shelf) if spec.mp4 else None

    @staticmethod
    def _parts(around: Surroundings, shelf: Shelf) -> CompositeMp4:
        spec, settings = around.spec, around.settings
        return CompositeMp4(
            shelf,
            canvas=spec.canvas if spec.video else None,
            audio=spec.audio,
            part_seconds=settings.mp4_part_seconds,
            part_bytes=settings.mp4_part_bytes,
            first_index=salvage.next_part(around.spool),
            left_open=salvage.parts(around.spool),
        )

    def wants_keyframe(self, time_ns: int) -> bool:
        return self._hls.next_cut_ns is None or time_ns >= self._hls.next_cut_ns

    def video(self, packets: list[Packet], start_ns: int) -> None:
        for packet in packets:
            time_ns = start_ns + packet.pts * SECOND // self._fps
            self._tell(self._hls.video(packet.data, time_ns, keyframe=packet.keyframe))
            if self._mp4:
                self._tell(self._mp4.video(packet.data, time_ns, keyframe=packet.keyframe))

    def audio(self, packets: list[Packet], start_ns: int) -> None:
        for packet in packets:
            time_ns = start_ns + packet.pts * SECOND // RATE_HZ
            self._tell(self._hls.audio(packet.data, time_ns))
            if self._mp4:
                self._tell(self._mp4.audio(packet.data, time_ns))

    def close(self) -> None:
        try:
            self._tell(self._hls.close())
        finally:
            if self._mp4:
                self._tell(self._mp4.close(finish=self._finish_parts()))
