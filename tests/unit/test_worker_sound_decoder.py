"""A decoder that gives no sound is replaced (row W9 of the faults)."""

from av.packet import Packet

from recorder.frames import EncodedFrame, Track
from recorder.media.encode import RATE
from recorder.worker.sound import Sound

SECOND = 1_000_000_000
TRACK = Track(101, "audio")


def test_a_decoder_that_gives_no_sound_is_replaced() -> None:
    """FFmpeg's decoders give nothing for good once they were told that the stream has ended, as an empty packet tells them."""
    sound = Sound(1, 0)

    def samples(number: int) -> int:
        frame = EncodedFrame(TRACK, "pcmu", bytes(160), True, number * SECOND // 50)
        return sum(chunk.samples.shape[1] for chunk in sound.place(frame))

    assert sum(samples(number) for number in range(10)) > 0
    assert sound._decoder is not None
    sound._decoder._context.decode(Packet(b""))
    assert sum(samples(number) for number in range(10, 105)) == 0
    assert sum(samples(number) for number in range(105, 160)) > RATE // 2
