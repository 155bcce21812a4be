"""Short videos in every codec that participants send, as live encoders make them."""

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
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


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """As root SVT-AV1 would give the whole process real-time priority 99, and every process started by later tests with it."""
    user = os.geteuid()
    os.seteuid(65534 if user == 0 else user)
    try:
        yield
    finally:
        os.seteuid(user)


def video_payloads(codec: str, width: int = 128, height: int = 72, count: int = 8, *, noise: int = 0) -> list[bytes]:
    """Pictures that grow brighter: luma 40, 60, 80, …, the first one a keyframe. `noise`: up to so much more, which takes bytes."""
    scheduler = os.sched_getscheduler(0)
    with unprivileged():
        payloads = _encoded(codec, width, height, count, noise)
    assert os.sched_getscheduler(0) == scheduler
    return payloads


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
