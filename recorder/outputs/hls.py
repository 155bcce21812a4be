"""The composite as HLS: TS slices of one size and one list, cut at the encoder's keyframes."""

from recorder.outputs import Draft, Product, Shelf, composite_track
from recorder.outputs.interleave import Interleaver, MediaPacket
from recorder.outputs.mux import AAC_FRAME_NS, TsFile
from recorder.outputs.playlist import rotate, track_event
from recorder.protocol import File
from recorder.spec import Canvas


class CompositeHls:
    """Takes what the composite's encoders make. `canvas` None: sound only.

    Every method returns the products that became ready.
    """

    def __init__(self, shelf: Shelf, *, canvas: Canvas | None, audio: bool, slice_seconds: float) -> None:
        self._shelf = shelf
        self._canvas = canvas
        self._has_audio = audio
        self._playlist = shelf.names.playlist()
        self._order = Interleaver(video=canvas is not None, audio=audio, limit_ns=round(slice_seconds * 1e9))
        self._frame_ns = 1_000_000_000 // canvas.fps if canvas else AAC_FRAME_NS
        self._open: tuple[Draft, TsFile] | None = None
        self._end_ns = 0  # of the media in the open slice
        self._sound_before: MediaPacket | None = None
        self._announced = False
        self._discontinuity = True

    @property
    def next_cut_ns(self) -> int | None:
        """The first keyframe at or after this begins the next slice; None: any keyframe does."""
        return self._order.cut_ns

    def video(self, data: bytes, time_ns: int, *, keyframe: bool) -> list[Product]:
        """An access unit in Annex B form, with parameter sets when it is a keyframe; decoded and shown in the same order."""
        return self._write(self._order.push("video", data, time_ns, keyframe=keyframe))

    def audio(self, data: bytes, time_ns: int) -> list[Product]:
        """An AAC frame in ADTS form; `time_ns` is that of the first sample it decodes to."""
        return self._write(self._order.push("audio", data, time_ns))

    def mark_discontinuity(self) -> list[Product]:
        """What follows doesn't continue what was before: close the slice, begin the next one at the next keyframe."""
        products = self.close()
        self._discontinuity = True
        self._order.cut_ns = None
        return products

    def close(self) -> list[Product]:
        """Commit what is left."""
        products = self._write(self._order.flush())
        return products + self._finish(self._end_ns)

    def _write(self, packets: list[MediaPacket]) -> list[Product]:
        products: list[Product] = []
        for packet in packets:
            if packet.cut:
                products += self._finish(packet.time_ns)
                products += self._begin(packet.time_ns)
            if self._open:
                self._put(self._open[1], packet)
            elif packet.kind == "audio":
                self._sound_before = packet
        return products

    def _put(self, file: TsFile, packet: MediaPacket) -> None:
        if packet.kind == "video":
            file.write_video(packet.data, packet.time_ns, packet.time_ns, keyframe=packet.keyframe)
            self._end_ns = max(self._end_ns, packet.time_ns + self._frame_ns)
        else:
            file.write_audio(packet.data, packet.time_ns)
            self._end_ns = max(self._end_ns, packet.time_ns + AAC_FRAME_NS)

    def _begin(self, start_ns: int) -> list[Product]:
        start_ms = self._shelf.start_ms(self._playlist, start_ns)
        name = self._shelf.names.slice(start_ms)
        tags = () if self._announced else self._start_tags(start_ms)
        draft = Draft(name, self._playlist, start_ns, start_ms, self._discontinuity, tags)
        file = TsFile(self._shelf.open(draft), video=self._canvas is not None, audio="aac" if self._has_audio else None)
        self._open = draft, file
        self._end_ns = start_ns
        self._discontinuity = False
        # The frame that ends where the slice begins primes the decoder, so that sound is whole from the start.
        if self._sound_before and start_ns - self._sound_before.time_ns < 2 * AAC_FRAME_NS:
            self._put(file, self._sound_before)
        self._sound_before = None
        if self._announced:
            return []
        self._announced = True
        kind = composite_track(video=self._canvas is not None, audio=self._has_audio)
        return [File(name=self._playlist, track=kind, uid=0, mixed=True, playable=True, start_ms=start_ms)]

    def _finish(self, end_ns: int) -> list[Product]:
        if not self._open:
            return []
        draft, file = self._open
        self._open = None
        file.close()
        return [self._shelf.close(draft, end_ns - draft.start_ns)]

    def _start_tags(self, start_ms: int) -> tuple[str, ...]:
        tags = []
        if self._canvas:
            tags += [rotate(self._canvas.width, self._canvas.height, 0, start_ms), track_event("video", start_ms)]
        if self._has_audio:
            tags.append(track_event("audio", start_ms))
        return tuple(tags)
