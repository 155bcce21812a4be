"""One participant's sound: decoded, and laid on the recording's sample grid."""

import logging
from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter
from typing import cast, get_args

from mixer.audio import Sound as Samples
from recorder.frames import Codec, EncodedFrame
from recorder.media.decode import AudioCodec, AudioDecoder
from recorder.worker.laying import Chunk, Layer

log = logging.getLogger(__name__)

STARVED_NS = 2_000_000_000  # packets in without one sample out: the decoder is stuck

_codec = attrgetter("codec")


class Sound:
    """Frames of one audio track in, chunks on the grid out. `zero_ns` of the timeline is sample 0."""

    def __init__(self, channels: int, zero_ns: int) -> None:
        self._channels = channels
        self._decoder: AudioDecoder | None = None
        self._unanswered_ns: int | None = None  # capture time of the first packet since the last sound
        self._layer = Layer(channels, zero_ns)

    def place(self, *frames: EncodedFrame) -> list[Chunk]:
        """Frames in their order: several at once cost less."""
        return self._layer.lay(piece for codec, row in groupby(frames, _codec) for piece in self._decode(codec, list(row)))

    def _decode(self, codec: Codec, frames: list[EncodedFrame]) -> list[tuple[Samples, int]]:
        if self._decoder is None or self._decoder.codec != codec:
            if codec not in get_args(AudioCodec):
                return []
            self._decoder = AudioDecoder(cast(AudioCodec, codec), self._channels)
        decoded = self._decoder.decode_all([(frame.payload, frame.time_ns) for frame in frames])
        last = frames[-1]
        if decoded:
            self._unanswered_ns = None
        elif self._unanswered_ns is None:
            self._unanswered_ns = frames[0].time_ns
        elif last.time_ns - self._unanswered_ns >= STARVED_NS:
            log.warning("the decoder gives no sound, starting a new one", extra={"uid": last.track.uid})
            self._decoder = self._unanswered_ns = None
        return decoded

    def release(self, before: int) -> Iterator[Chunk]:
        """All sound before this sample is needed now."""
        return self._layer.release(before)

    def end(self) -> Iterator[Chunk]:
        """Nothing follows for now."""
        return self._layer.end()
