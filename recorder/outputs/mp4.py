"""The composite as MP4 parts, each with its index in front."""

import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from av.error import FFmpegError

from recorder.outputs import DRAFT, FRAGMENTS, Draft, Product, Shelf, composite_track
from recorder.outputs.interleave import Interleaver, MediaPacket
from recorder.outputs.mux import AAC_FRAME_NS, Mp4File, index_in_front
from recorder.outputs.salvage import Leftover, whole_fragments
from recorder.protocol import File, Slice
from recorder.spec import Canvas
from storage.errors import SpoolError

log = logging.getLogger(__name__)

_FAILURES = (FFmpegError, OSError, SpoolError)  # of one part: the recording must go on, the media is in the slices


class CompositeMp4:
    """Takes what the composite's encoders make. A new part begins at the first keyframe past either limit.

    A part that was cut off is rewritten and committed in a thread of its own: that takes seconds which the recording does not
    have. So is, before all others, what a killed worker `left_open`. `canvas` None: sound only. Every method returns the products
    that became ready.
    """

    def __init__(
        self,
        shelf: Shelf,
        *,
        canvas: Canvas | None,
        audio: bool,
        part_seconds: float = 7200,
        part_bytes: int = 2_000_000_000,
        first_index: int = 0,
        left_open: Sequence[Leftover] = (),
    ) -> None:
        self._shelf = shelf
        self._canvas = canvas
        self._has_audio = audio
        self._order = Interleaver(video=canvas is not None, audio=audio, limit_ns=round(part_seconds * 1e9))
        self._part_bytes = part_bytes
        self._frame_ns = 1_000_000_000 // canvas.fps if canvas else AAC_FRAME_NS
        self._index = first_index
        self._open: tuple[Draft, Mp4File] | None = None
        self._end_ns = 0  # of the media in the open part
        self._sound_before: MediaPacket | None = None
        self._finisher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mp4")
        self._finishing: deque[Future[Slice | None]] = deque()
        for item in left_open:
            self._finishing.append(self._finisher.submit(self._salvaged, item))

    def video(self, data: bytes, time_ns: int, *, keyframe: bool) -> list[Product]:
        """An access unit in Annex B form, with parameter sets when it is a keyframe; decoded and shown in the same order."""
        self._measure(keyframe)
        return self._write(self._order.push("video", data, time_ns, keyframe=keyframe))

    def audio(self, data: bytes, time_ns: int) -> list[Product]:
        """An AAC frame in ADTS form; `time_ns` is that of the first sample it decodes to."""
        self._measure(not self._canvas)
        return self._write(self._order.push("audio", data, time_ns))

    def close(self, *, finish: bool = True) -> list[Product]:
        """Finish and commit what is left; takes a few seconds per hour of media. `finish` False: leave it to be salvaged."""
        products = self._write(self._order.flush())
        if finish:
            self._finish(self._end_ns)
        elif self._open:
            self._open[1].close()
            self._open = None
        self._finisher.shutdown(cancel_futures=not finish)
        return products + self._finished()

    def _measure(self, may_cut: bool) -> None:
        if may_cut and self._open and self._open[1].size >= self._part_bytes:
            self._order.cut_ns = None

    def _write(self, packets: list[MediaPacket]) -> list[Product]:
        products: list[Product] = []
        for packet in packets:
            if packet.cut:
                self._finish(packet.time_ns)
                products.append(self._begin(packet.time_ns))
            if self._open:
                self._put(self._open[1], packet)
            if packet.kind == "audio":
                self._sound_before = packet
        return products + self._finished()

    def _put(self, file: Mp4File, packet: MediaPacket) -> None:
        if packet.kind == "video":
            file.write_video(packet.data, packet.time_ns, keyframe=packet.keyframe, duration_ns=self._frame_ns)
            self._end_ns = max(self._end_ns, packet.time_ns + self._frame_ns)
        else:
            file.write_audio(packet.data, packet.time_ns)
            self._end_ns = max(self._end_ns, packet.time_ns + AAC_FRAME_NS)

    def _begin(self, start_ns: int) -> Product:
        name = self._shelf.names.mp4(self._index)
        self._index += 1
        draft = Draft(name, None, start_ns, self._shelf.utc_ms(start_ns))
        size = (self._canvas.width, self._canvas.height) if self._canvas else None
        self._shelf.open(draft)
        file = Mp4File(self._shelf.partial(f"{name}{FRAGMENTS}"), origin_ns=start_ns, size=size, audio=self._has_audio)
        self._open = draft, file
        self._end_ns = start_ns
        # The frame that ends where the part begins primes the decoder, so that sound is whole from the start.
        if self._sound_before and start_ns - self._sound_before.time_ns < 2 * AAC_FRAME_NS:
            self._put(file, self._sound_before)
        kind = composite_track(video=self._canvas is not None, audio=self._has_audio)
        return File(name=name, track=kind, uid=0, mixed=True, playable=True, start_ms=draft.start_ms)

    def _finish(self, end_ns: int) -> None:
        if self._open:
            draft, file = self._open
            self._open = None
            file.close()
            self._finishing.append(self._finisher.submit(self._commit, draft, end_ns - draft.start_ns))

    def _commit(self, draft: Draft, duration_ns: int) -> Slice | None:
        fragments, target = self._shelf.partial(f"{draft.name}{FRAGMENTS}"), self._shelf.partial(draft.name)
        try:
            index_in_front(fragments, target)
            committed = self._shelf.close(draft, duration_ns).commit()
        except _FAILURES:
            log.exception("an MP4 cannot be finished now, what it is made of stays", extra={"file": draft.name})
            with contextlib.suppress(OSError):
                target.unlink(missing_ok=True)
            return None
        fragments.unlink()
        return committed

    def _salvaged(self, item: Leftover) -> Slice | None:
        return salvage_part(item, self._shelf.partial, lambda duration_ns: self._shelf.close(item.draft, duration_ns).commit())

    def _finished(self) -> list[Product]:
        ready: list[Product] = []
        while self._finishing and self._finishing[0].done():
            job = self._finishing.popleft()
            made = None if job.cancelled() else job.result()
            if made:
                ready.append(made)
        return ready


def salvage_part(item: Leftover, partial: Callable[[str], Path], commit: Callable[[int], Slice]) -> Slice | None:
    """Rewrite what is whole of an open part and `commit` it with its duration in ns; None when nothing is, or it fails."""
    name = item.draft.name
    fragments, target = partial(f"{name}{FRAGMENTS}"), partial(name)
    made = None
    try:
        whole = whole_fragments(fragments) if fragments.exists() else 0
        if whole:
            os.truncate(fragments, whole)
            made = commit(index_in_front(fragments, target))
            log.info("open MP4 salvaged", extra={"file": name, "seconds": round(made.duration_ns / 1e9, 3)})
        else:  # killed before its first second was over
            log.warning("nothing is whole of an open MP4", extra={"file": name})
    except _FAILURES:
        log.exception("an open MP4 cannot be salvaged", extra={"file": name})
        return None
    for remains in (fragments, target, partial(f"{name}{DRAFT}")):
        remains.unlink(missing_ok=True)
    return made
