"""Pictures from decoded frames, and scaling: as sharp as a good scaler, in the right colours, without copies."""

import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange
from PIL import Image

from mixer.canvas import Canvas, colour
from mixer.compositor import Compositor
from mixer.fit import Size, Tile, crop, fit, pixels
from mixer.layouts import Options, load
from mixer.picture import Picture, Plane, Planes
from recorder.media.pictures import frame_of, picture_of, planes_of
from recorder.media.scale import Scaler

RED = colour("#ff0000")


def lifelike(width: int, height: int, seed: int = 1) -> Plane:
    """Soft shapes, a fine texture, hard edges and camera noise."""
    y, x = np.mgrid[0:height, 0:width]
    plane = 118 + 60 * np.sin(x / 37 + y / 53 + seed) + 30 * np.sin(x / 7.3) * np.cos(y / 9.1) + (x // 23 + y // 19) % 2 * 20
    noisy: Plane = np.clip(plane + np.random.default_rng(seed).normal(0, 3, plane.shape), 16, 235).astype(np.uint8)
    return noisy


def picture(width: int, height: int, rotation: int = 0) -> Picture:
    chroma = lifelike(width // 2, height // 2, 2), lifelike(width // 2, height // 2, 3)
    return Picture(Planes(lifelike(width, height), *chroma), rotation)


def psnr(found: Plane, expected: Plane) -> float:
    return float(10 * np.log10(255**2 / max(float(np.mean((found.astype(float) - expected) ** 2)), 1e-9)))


def plain(planes: Planes) -> list[int]:
    for plane in planes:
        assert np.ptp(plane) <= 1  # swscale dithers
    return [round(float(plane.mean())) for plane in planes]


def flat_frame(values: tuple[int, int, int], pixel_format: str = "yuv420p") -> VideoFrame:
    size, chroma = (36, 64), (18, 32) if "420" in pixel_format else (36, 64)
    return VideoFrame.from_dlpack(
        tuple(np.full(shape, value, np.uint8) for shape, value in zip((size, chroma, chroma), values, strict=True)), pixel_format
    )


def tile_sizes(canvas: Size) -> list[tuple[Size, bool]]:
    """The sizes of all places of the layouts for one to seventeen people, and whether pictures are fitted there."""
    placements = [
        placement
        for number in (0, 1, 2)
        for count in range(1, 18)
        for large in (1, None)
        for placement in load(number).place(range(1, count + 1), canvas, Options(max_resolution_uid=large))
    ]
    return sorted({(pixels(p.rect, canvas).size, p.fit) for p in placements}, key=lambda found: (found[0].width, found[0].height))


@pytest.mark.parametrize("canvas", [Size(360, 640), Size(640, 360), Size(1280, 720), Size(1920, 1080)])
@pytest.mark.parametrize("source", [Size(640, 360), Size(1280, 720), Size(320, 180)])
def test_every_tile_of_every_layout_is_within_38_db_of_lanczos(source: Size, canvas: Size) -> None:
    original = picture(source.width, source.height)
    for tile, whole in tile_sizes(canvas):
        part = Tile(0, 0, source.width, source.height) if whole else crop(source, 0, tile)
        target = fit(source, 0, tile).size if whole else tile
        assert_near_lanczos(original, part, target)


@pytest.mark.parametrize("reduction", [1.1, 1.5, 2, 3, 4.3, 6, 8, 8.9, 9.1, 10, 12, 13.3, 15])
def test_every_reduction_is_within_38_db_of_lanczos(reduction: float) -> None:
    assert_near_lanczos(picture(1280, 720), Tile(0, 0, 1280, 720), Size(int(640 / reduction) * 2, int(360 / reduction) * 2))


def assert_near_lanczos(original: Picture, part: Tile, target: Size) -> None:
    scaled = Scaler()(original, part, target.width, target.height)
    assert scaled.size == target
    for plane, found in zip(original.planes.cut(part), scaled, strict=True):
        whole = Image.fromarray(np.ascontiguousarray(plane))
        expected = np.asarray(whole.resize((found.shape[1], found.shape[0]), Image.Resampling.LANCZOS))
        assert psnr(found, expected) >= 38, (part, target)


def test_a_crop_is_the_same_as_cropping_first() -> None:
    original = picture(640, 360)
    part = Tile(142, 30, 360, 300)
    cut = Picture(Planes(*(np.ascontiguousarray(plane) for plane in original.planes.cut(part))))
    for found, expected in zip(Scaler()(original, part, 120, 100), Scaler()(cut, Tile(0, 0, 360, 300), 120, 100), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_one_scaler_takes_any_sequence_of_sizes() -> None:
    scaler = Scaler()
    for source, target in [
        ((640, 360), (212, 120)),
        ((320, 180), (212, 120)),
        ((1280, 720), (60, 34)),  # another filter
        ((640, 360), (60, 34)),
        ((2, 2), (1280, 720)),
        ((4096, 2), (2, 720)),
        ((640, 360), (212, 120)),
    ]:
        scaled = scaler(picture(*source), Tile(0, 0, *source), *target)
        assert scaled.size == Size(*target)
        for found, fresh in zip(scaled, Scaler()(picture(*source), Tile(0, 0, *source), *target), strict=True):
            np.testing.assert_array_equal(found, fresh)


def test_nothing_is_copied_where_nothing_has_to_be_done() -> None:
    original = picture(64, 36)
    for plane, found in zip(original.planes, Scaler()(original, Tile(0, 0, 64, 36), 64, 36), strict=True):
        assert np.shares_memory(plane, found)


def test_a_frame_is_a_window_on_the_canvas() -> None:
    canvas = Canvas(98, 46)  # neither side divisible by four
    frame = frame_of(canvas.planes)
    assert (frame.width, frame.height, frame.format.name, frame.color_range) == (98, 46, "yuv420p", ColorRange.MPEG)
    canvas.planes.v[22, 48] = 99
    assert planes_of(frame).v[22, 48] == 99
    assert np.shares_memory(planes_of(frame).y, canvas.buffer)


@pytest.mark.parametrize("size", [(65, 37), (2, 3), (64, 36)])
def test_odd_sizes_lose_their_last_line(size: tuple[int, int]) -> None:
    frame = VideoFrame(*size, "yuv420p")
    for plane in frame.planes:
        plane.update(bytes(range(plane.line_size % 256)).ljust(plane.line_size, b"\0") * plane.height)
    planes = picture_of(frame).planes
    assert planes.size == Size(size[0] // 2 * 2, size[1] // 2 * 2)
    assert planes.u.shape == (size[1] // 2, size[0] // 2)
    assert planes.y[0, :2].tolist() == [0, 1]


def test_a_decoded_frame_is_used_as_it_is() -> None:
    frame = flat_frame(RED)
    found = picture_of(frame, 450)
    assert (found.rotation, found.matrix, found.full_range) == (90, "bt601", False)
    assert np.shares_memory(found.planes.y, planes_of(frame).y)


FULL_RANGE_RED = (76, 85, 255)  # JFIF
BT709_RED = (63, 102, 240)


@pytest.mark.parametrize(
    ("values", "pixel_format", "colorspace", "color_range"),
    [
        (RED, "yuv420p", 2, ColorRange.UNSPECIFIED),
        (RED, "yuv420p", 5, ColorRange.MPEG),
        (RED, "yuv444p", 2, ColorRange.UNSPECIFIED),
        (FULL_RANGE_RED, "yuv420p", 6, ColorRange.JPEG),
        (FULL_RANGE_RED, "yuvj420p", 2, ColorRange.UNSPECIFIED),
        (FULL_RANGE_RED, "yuvj444p", 2, ColorRange.UNSPECIFIED),
        (BT709_RED, "yuv420p", 1, ColorRange.MPEG),
        (BT709_RED, "yuv444p", 1, ColorRange.MPEG),
        ((0, 0, 255), "gbrp", 0, ColorRange.UNSPECIFIED),
    ],
)
@pytest.mark.parametrize("target", [(64, 36), (20, 10)])
def test_every_kind_of_red_becomes_the_canvas_s(
    values: tuple[int, int, int], pixel_format: str, colorspace: int, color_range: ColorRange, target: tuple[int, int]
) -> None:
    frame = flat_frame(values, pixel_format)
    frame.colorspace, frame.color_range = colorspace, color_range
    scaled = Scaler()(picture_of(frame), Tile(0, 0, 64, 36), *target)
    assert plain(scaled) == pytest.approx(RED, abs=2)


def test_ten_bits_become_eight() -> None:
    frame = frame_of(Planes.filled(Size(64, 36), RED)).reformat(format="yuv420p10le")
    assert plain(picture_of(frame).planes) == pytest.approx(RED, abs=1)


def test_a_composite_of_real_scalers_is_right_to_the_pixel() -> None:
    canvas = Canvas(640, 360)
    compositor = Compositor(canvas, Scaler)
    compositor.arrange(load(1).place(range(9), canvas.size, Options()))
    colours = [(30 + 20 * uid, 60 + 15 * uid, 200 - 15 * uid) for uid in range(9)]
    for uid, value in enumerate(colours):
        compositor.set_picture(uid, Picture(Planes.filled(Size(640, 360), value), 90 * (uid % 4)))
    assert compositor.draw()
    xs, ys = (0, 214, 426, 640), (0, 120, 240, 360)
    for uid, value in enumerate(colours):
        row, column = divmod(uid, 3)
        tile = Tile(xs[column], ys[row], xs[column + 1] - xs[column], ys[row + 1] - ys[row])
        assert plain(canvas.planes.cut(tile)) == list(value)
