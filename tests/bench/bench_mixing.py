"""What mixing costs by itself: one tick of the compositor when everybody has a new picture, and the sum of many speakers."""

import statistics
import time
from collections.abc import Iterable

import numpy as np

from mixer.audio import AudioMixer
from mixer.canvas import Canvas
from mixer.compositor import Compositor
from mixer.fit import Size
from mixer.layouts import Options, load
from mixer.picture import Picture, Plane, Planes
from recorder.media.scale import Scaler
from tests.bench import Result

TICKS = 100
SECONDS = 20
SAMPLES = 960  # in a packet: 20 ms
BLOCK = 1024

CASES = [  # people, their pictures, canvas
    (9, Size(640, 360), Size(640, 360)),
    (9, Size(640, 360), Size(1280, 720)),
    (17, Size(640, 360), Size(1280, 720)),
    (4, Size(1280, 720), Size(1920, 1080)),
]


def mixing() -> Iterable[Result]:
    for people, source, size in CASES:
        name = f"{people}x{source.height}p_{size.width}x{size.height}"
        yield Result(f"mixing/{name}", round(_milliseconds_a_tick(people, source, size), 3), "CPU ms per picture")
    for people in (9, 50):
        for kind, level in (("", 0.01), ("_limited", 0.5)):
            yield Result(f"mixing/audio_{people}{kind}", round(_milliseconds_a_second(people, level), 2), "ms per s")


def _milliseconds_a_tick(people: int, source: Size, size: Size) -> float:
    canvas = Canvas(size.width, size.height)
    compositor = Compositor(canvas, Scaler)
    compositor.arrange(load(1).place(range(people), canvas.size, Options()))
    pictures = [[_planes(source, seed + 2 * uid) for seed in range(2)] for uid in range(people)]
    spent = []
    for tick in range(TICKS):
        before_ns = compositor.spent_ns
        for uid, planes in enumerate(pictures):
            compositor.set_picture(uid, Picture(planes[tick % 2]))
        compositor.draw()
        spent.append((compositor.spent_ns - before_ns) / 1e6)
    return statistics.median(spent)


def _planes(size: Size, seed: int) -> Planes:
    """Noise in rows as a decoder pads them."""
    rng = np.random.default_rng(seed)

    def plane(width: int, height: int) -> Plane:
        padded = rng.integers(16, 235, (height, width + 64), np.uint8)
        return padded[:, :width]

    return Planes(plane(size.width, size.height), plane(size.width // 2, size.height // 2), plane(size.width // 2, size.height // 2))


def _milliseconds_a_second(people: int, level: float) -> float:
    rng = np.random.default_rng(1)
    packets = [rng.uniform(-level, level, (1, SAMPLES)).astype(np.float32) for _ in range(8)]
    mixer = AudioMixer(channels=1)
    started = time.process_time()
    for number in range(SECONDS * 50):
        for uid in range(people):
            mixer.write(uid, number * SAMPLES, packets[(uid + number) % 8])
        while mixer.position + BLOCK <= (number - 9) * SAMPLES:
            mixer.read(BLOCK)
    return (time.process_time() - started) * 1000 / SECONDS


BENCHES = {"mixing": mixing}
