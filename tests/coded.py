"""Short media in the codecs that participants send, as live encoders make them."""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from functools import cache

import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.codec.context import CodecContext
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from numpy.random import default_rng  # loaded while it may still be read

ENCODERS = {"h264": "libx264", "vp8": "libvpx", "vp9": "libvpx-vp9", "av1": "libsvtav1"}
LIVE = {
    "libx264": {"tune": "zerolatency", "preset": "ultrafast"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"},
    "libsvtav1": {"preset": "12", "svtav1-params": "pred-struct=1:rc=2:lookahead=0:lp=1"},
}


_OPUS_HZ = 48_000
_FIRST_OF_CELT = 16  # of the configurations
_NOBODY = 65534
_SECONDS = 20


@cache
def video_payloads(codec: str, width: int = 128, height: int = 72, count: int = 8, *, noise: int = 0) -> list[bytes]:
    """Pictures that grow brighter: luma 40, 60, 80, …, the first one a keyframe. `noise`: up to so much more, which takes bytes."""
    return (_encoded_elsewhere if codec == "av1" else _encoded)(codec, width, height, count, noise)


def _encoded_elsewhere(*what: object) -> list[bytes]:
    """SVT-AV1 gives a process of root real-time priority 99, and on a busy machine its threads wait for each other for ever at times."""
    command = [sys.executable, "-m", "tests.coded", *map(str, what)]
    for last in (False, False, True):
        try:
            made = subprocess.run(command, stdout=subprocess.PIPE, timeout=_SECONDS, check=True)  # ourselves
        except subprocess.TimeoutExpired:
            if last:
                raise
        else:
            payloads: list[bytes] = pickle.loads(made.stdout)  # the same
            return payloads
    raise AssertionError


def _encoded(codec: str, width: int, height: int, count: int, noise: int) -> list[bytes]:
    context = CodecContext.create(ENCODERS[codec], "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.time_base, context.framerate = Fraction(1, 15), Fraction(15)
    context.thread_count = 1
    context.bit_rate = 4_000_000 if noise else 500_000
    context.max_b_frames = 0
    context.options = LIVE[ENCODERS[codec]]
    chance = default_rng(1)
    payloads = []
    for tick in range(count):
        frame = VideoFrame(width, height, "yuv420p")
        for plane, value in zip(frame.planes, (40 + 20 * tick, 128, 128), strict=True):
            plane.update((value + chance.integers(0, noise + 1, plane.buffer_size)).astype(np.uint8).tobytes())
        frame.pts, frame.time_base = tick, Fraction(1, 15)
        payloads += [bytes(packet) for packet in context.encode(frame)]
    return payloads + [bytes(packet) for packet in context.encode(None)]


def opus_with_fec(samples: npt.NDArray[np.int16], *, kbps: int) -> Iterator[bytes]:
    """Packets of 20 ms of speech; some repeat, in case it was lost, what mattered in the one before (RFC 6716 section 2.1.7).

    `samples` are mono at 48 kHz. With 24 kbit/s packets are SILK's, with 32 hybrid.
    """
    encoder = CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = _OPUS_HZ, "mono", "s16"
    encoder.bit_rate, encoder.time_base = 1000 * kbps, Fraction(1, _OPUS_HZ)
    encoder.options = {"application": "voip", "frame_duration": "20", "fec": "1", "packet_loss": "10"}
    for first in range(0, len(samples), _OPUS_HZ // 50):
        frame = AudioFrame.from_ndarray(samples[None, first : first + _OPUS_HZ // 50], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = _OPUS_HZ, first, Fraction(1, _OPUS_HZ)
        yield from (bytes(packet) for packet in encoder.encode(frame))


def carries_fec(packet: bytes) -> bool:
    """Whether a mono packet of 20 ms of SILK or hybrid repeats anything of the one before (RFC 6716 section 4.2.3)."""
    return packet[0] >> 3 < _FIRST_OF_CELT and bool(packet[1] & 0x40)


if __name__ == "__main__":
    if os.geteuid() == 0:
        os.seteuid(_NOBODY)
    codec, *numbers = sys.argv[1:]
    sys.stdout.buffer.write(pickle.dumps(_encoded(codec, *map(int, numbers))))
    sys.stdout.flush()
    os._exit(0)  # its threads may not end
