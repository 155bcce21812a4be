"""Sound on the output's timeline: AAC frames copied onto a grid, or decoded, laid and encoded."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from recorder.media.encode import FRAME_SAMPLES, RATE, AudioEncoder
from recorder.outputs.mux import AAC_FRAME_NS
from recorder.tools.offline.media import SECOND, AudioFacts, Coded, Samples, coded, sound
from recorder.tools.offline.playlist import Piece

_STRETCH = 10 * RATE  # samples of silence laid at a time
_SEAM = RATE // 400  # samples: sound that is less apart goes on; names of slices tell whole milliseconds
_MONO, _STEREO = 0, 2  # profiles of the encoder

Place = Callable[[int], int | None]  # from a moment to the output's time; None: not there


def copyable_channels(facts: Sequence[AudioFacts]) -> int | None:
    """The number of channels, if all of it can be one track as it is; else None."""
    if not all(fact.adts and fact.rate == RATE for fact in facts):
        return None
    channels = {fact.channels for fact in facts}
    return channels.pop() if len(channels) == 1 and channels <= {1, 2} else None


def encoded_channels(facts: Sequence[AudioFacts]) -> int:
    """One, or two where any of it has more. Opus in WebM says two of everything, and voices are one."""
    return 2 if any(fact.channels > 1 for fact in facts if fact.codec != "opus") else 1


def copied(pieces: Sequence[Piece], place: Place, length_ns: int, channels: int) -> Iterator[Coded]:
    """AAC frames as they are. Where there are none stands silence, a frame that is encoded once.

    Frames follow each other without gaps; the first one stands exactly where it belongs, later ones within half a frame.
    """
    silence = _silent_frame(channels)
    origin: int | None = None  # sample at which the grid begins
    count = 0

    def next_ns() -> int:
        return ((origin or 0) + count * FRAME_SAMPLES) * SECOND // RATE

    for packet in _placed(pieces, place, length_ns):
        if origin is None:
            origin = round(packet.time_ns * RATE / SECOND) % FRAME_SAMPLES
        while next_ns() + AAC_FRAME_NS // 2 < packet.time_ns:
            yield Coded(next_ns(), silence)
            count += 1
        if packet.time_ns + AAC_FRAME_NS // 2 > next_ns():  # else there is sound already
            yield Coded(next_ns(), packet.data)
            count += 1
    while next_ns() + AAC_FRAME_NS // 2 < length_ns:
        yield Coded(next_ns(), silence)
        count += 1


def laid(pieces: Sequence[Piece], place: Place, length_ns: int, channels: int) -> Iterator[Samples]:
    """Decoded sound from zero to `length_ns`, without a gap."""
    end = 0  # samples so far
    length = round(length_ns * RATE / SECOND)
    for time_ns, samples in sound(pieces, channels):
        at_ns = place(time_ns)
        if at_ns is None:
            continue
        at = round(at_ns * RATE / SECOND)
        if abs(at - end) < _SEAM and end:
            at = end
        for silence in _silence(min(at, length) - end, channels):
            end += silence.shape[1]
            yield silence
        part = samples[:, max(0, end - at) : max(0, length - at)]
        if part.shape[1]:
            end += part.shape[1]
            yield part
    yield from _silence(length - end, channels)


def encoded(parts: Iterable[Samples], channels: int) -> Iterator[Coded]:
    """AAC at 48 kHz of sound that begins at zero. The first frame lies before it and primes the decoder."""
    encoder = AudioEncoder(_MONO if channels == 1 else _STEREO)
    for part in parts:
        for packet in encoder.encode(part):
            yield Coded(packet.pts * SECOND // RATE, packet.data)
    for packet in encoder.flush():
        yield Coded(packet.pts * SECOND // RATE, packet.data)


def _placed(pieces: Sequence[Piece], place: Place, length_ns: int) -> Iterator[Coded]:
    for packet in coded(pieces, "audio"):
        at_ns = place(packet.time_ns)
        if at_ns is not None and 0 <= at_ns < length_ns:
            yield Coded(at_ns, packet.data)


def _silence(samples: int, channels: int) -> Iterator[Samples]:
    while samples > 0:
        yield np.zeros((channels, min(samples, _STRETCH)), np.float32)
        samples -= _STRETCH


def _silent_frame(channels: int) -> bytes:
    encoder = AudioEncoder(_MONO if channels == 1 else _STEREO)
    packets = encoder.encode(np.zeros((channels, 8 * FRAME_SAMPLES), np.float32))
    encoder.flush()  # libav complains of what is left inside
    return packets[-1].data
