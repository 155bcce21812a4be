"""One participant's sound: decoded, and laid on the recording's sample grid without holes or overlaps.

Small differences between the sender's clock and ours are taken up by stretching each packet by at most 0.5 %; larger ones are
gaps (mute, discontinuous transmission, loss) or jumps, and become silence or a cut.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast, get_args

from mixer.audio import Sound as Samples
from recorder.frames import EncodedFrame
from recorder.media.decode import AudioCodec, AudioDecoder
from recorder.media.resample import Stretcher

RATE_HZ = 48_000
_TOLERATED = RATE_HZ // 2000  # samples of difference left alone: 0.5 ms, the sender reports are no better
_JUMP = RATE_HZ // 100  # samples of difference that no drift explains from one packet to the next: 10 ms
_STRETCH = 200  # one sample in so many


@dataclass(frozen=True, slots=True)
class Chunk:
    """Sound at its place: `samples` has the shape (channels, n); `start` counts 48 kHz samples from the grid's zero."""

    start: int
    samples: Samples


class Sound:
    """Frames of one audio track in, chunks on the grid out. `zero_ns` of the timeline is sample 0."""

    def __init__(self, channels: int, zero_ns: int) -> None:
        self._channels = channels
        self._zero_ns = zero_ns
        self._decoder: AudioDecoder | None = None
        self._stretcher = Stretcher(channels)
        self._next: int | None = None  # where the next chunk would continue the last one

    def place(self, frame: EncodedFrame) -> Iterator[Chunk]:
        if self._decoder is None or self._decoder.codec != frame.codec:
            if frame.codec not in get_args(AudioCodec):
                return
            self._decoder = AudioDecoder(cast(AudioCodec, frame.codec), self._channels)
        for samples, time_ns in self._decoder.decode(frame.payload, frame.time_ns):
            yield self._lay(samples, time_ns)

    def _lay(self, samples: Samples, time_ns: int) -> Chunk:
        count = samples.shape[1]
        wanted = (time_ns - self._zero_ns) * RATE_HZ // 1_000_000_000 - Stretcher.DELAY
        if self._next is None or abs(wanted - self._next) > _JUMP:
            start = wanted if self._next is None else max(wanted, self._next)
            samples = samples[:, start - wanted :]  # what would overlap is left out
            self._stretcher = Stretcher(self._channels)
        else:
            start = self._next
            late = wanted - start
            room = count // _STRETCH if abs(late) > _TOLERATED else 0
            samples = self._stretcher.stretch(samples, count + max(-room, min(room, late)))
        self._next = start + samples.shape[1]
        return Chunk(start, samples)
