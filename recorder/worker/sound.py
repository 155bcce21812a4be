"""One participant's sound: decoded, and laid on the recording's sample grid."""

import logging
from collections.abc import Iterator
from typing import cast, get_args

from mixer.audio import Sound as Samples
from recorder.frames import EncodedFrame
from recorder.media.decode import AudioCodec, AudioDecoder
from recorder.worker.laying import Chunk, Layer

log = logging.getLogger(__name__)

STARVED_NS = 2_000_000_000  # packets in without one sample out: the decoder is stuck


class Sound:
    """Frames of one audio track in, chunks on the grid out. `zero_ns` of the timeline is sample 0."""

    def __init__(self, channels: int, zero_ns: int) -> None:
        self._channels = channels
        self._decoder: AudioDecoder | None = None
        self._unanswered_ns: int | None = None  # capture time of the first packet since the last sound
        self._layer = Layer(channels, zero_ns)

    def place(self, *frames: EncodedFrame) -> list[Chunk]:
        """Frames in their order: several at once cost less."""
        return self._layer.lay(piece for frame in frames for piece in self._decode(frame))

    def _decode(self, frame: EncodedFrame) -> list[tuple[Samples, int]]:
        if self._decoder is None or self._decoder.codec != frame.codec:
            if frame.codec not in get_args(AudioCodec):
                return []
            self._decoder = AudioDecoder(cast(AudioCodec, frame.codec), self._channels)
        decoded = self._decoder.decode(frame.payload, frame.time_ns)
        if decoded:
            self._unanswered_ns = None
        elif self._unanswered_ns is None:
            self._unanswered_ns = frame.time_ns
        elif frame.time_ns - self._unanswered_ns >= STARVED_NS:
            log.warning("the decoder gives no sound, starting a new one", extra={"uid": frame.track.uid})
            self._decoder = self._unanswered_ns = None
        return decoded

    def release(self, before: int) -> Iterator[Chunk]:
        """All sound before this sample is needed now."""
        return self._layer.release(before)

    def end(self) -> Iterator[Chunk]:
        """Nothing follows for now."""
        return self._layer.end()
