"""`make fuzz`: mutated packets against the whole receive path, FUZZ_PACKETS of them (default 1,000,000), and decoders behind it."""

import os
import time

import pytest

from recorder.media.decode import AudioDecoder, VideoDecoder
from tests.good_streams import good_streams
from tests.hostile import Attack

PACKETS = int(os.environ.get("FUZZ_PACKETS", "1000000"))
ROUNDS = 50


@pytest.mark.timeout(3600)
def test_mutated_packets() -> None:
    streams = good_streams()
    seed = int(os.environ.get("FUZZ_SEED", time.time_ns() % 1_000_000))
    print(f"seeds {seed} to {seed + ROUNDS - 1}, {PACKETS} packets")
    decoded = 0
    for number in range(ROUNDS):
        attack = Attack(streams, seed + number)
        attack.run(PACKETS // ROUNDS)
        attack.check()
        decoders: dict[str, VideoDecoder | AudioDecoder] = {}
        for frame in attack.frames[:2000]:  # decoding costs a hundred times as much
            if frame.codec not in decoders:
                decoders[frame.codec] = (
                    VideoDecoder(frame.codec) if frame.track.kind == "video" else AudioDecoder(frame.codec, 1)  # type: ignore[arg-type]  # by kind
                )
            decoded += len(decoders[frame.codec].decode(frame.payload, frame.time_ns))
    print(f"{decoded} pictures and packets of sound decoded")
    assert decoded
