"""One participant's sound: decoded, and laid on the recording's sample grid."""

from collections.abc import Iterator
from typing import cast, get_args

from recorder.frames import EncodedFrame
from recorder.media.decode import AudioCodec, AudioDecoder
from recorder.worker.laying import Chunk, Layer


class Sound:
    """Frames of one audio track in, chunks on the grid out. `zero_ns` of the timeline is sample 0."""

    def __init__(self, channels: int, zero_ns: int) -> None:
        self._channels = channels
        self._decoder: AudioDecoder | None = None
        self._layer = Layer(channels, zero_ns)

    def place(self, frame: EncodedFrame) -> Iterator[Chunk]:
        if self._decoder is None or self._decoder.codec != frame.codec:
            if frame.codec not in get_args(AudioCodec):
                return
            self._decoder = AudioDecoder(cast(AudioCodec, frame.codec), self._channels)
        for samples, time_ns in self._decoder.decode(frame.payload, frame.time_ns):
            yield from self._layer.lay(samples, time_ns)

    def release(self, before: int) -> Iterator[Chunk]:
        """All sound before this sample is needed now."""
        return self._layer.release(before)

    def end(self) -> Iterator[Chunk]:
        """Nothing follows for now."""
        return self._layer.end()
