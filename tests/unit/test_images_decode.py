"""What the image helper makes of files: upright planes of an even size, or a refusal."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from recorder.agent.image_helper import NoPicture, decode

RED, BLUE = (200, 30, 40), (20, 40, 210)


def two_halves(width: int = 64, height: int = 48, mode: str = "RGB") -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image.convert(mode)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def colours(data: bytes, width: int = 640, height: int = 360) -> tuple[tuple[int, int], tuple[int, int, int], tuple[int, int, int]]:
    """The size, and the RGB colours in the middle of the left and of the right quarter."""
    width, height, pixels = decode(data, width, height)
    planes = np.frombuffer(pixels, np.uint8)
    assert planes.size == width * height * 3 // 2
    luma, chroma = planes[: width * height].reshape(height, width), planes[width * height :].reshape(2, height // 2, width // 2)
    found = []
    for x in (width // 4, width - 1 - width // 4):
        y, u, v = luma[height // 2, x], chroma[0, height // 4, x // 2], chroma[1, height // 4, x // 2]
        found.append(Image.new("YCbCr", (1, 1), (int(y), int(u), int(v))).convert("RGB").getpixel((0, 0)))
    return (width, height), *found  # type: ignore[return-value]  # RGB has three


def near(found: tuple[int, int, int], wanted: tuple[int, int, int]) -> bool:
    return max(abs(a - b) for a, b in zip(found, wanted, strict=True)) <= 8


@pytest.mark.parametrize(
    "data",
    [
        saved(two_halves(), "JPEG", quality=95),
        saved(two_halves(), "JPEG", quality=95, progressive=True),
        saved(two_halves(mode="CMYK"), "JPEG", quality=95),
        saved(two_halves(), "BMP"),
        saved(two_halves().quantize(16), "BMP"),
        saved(two_halves(), "PNG"),
        saved(two_halves().quantize(16), "PNG"),
        saved(two_halves(mode="RGBA"), "PNG"),
    ],
    ids=["jpeg", "progressive", "cmyk", "bmp", "bmp-palette", "png", "png-palette", "png-alpha"],
)
def test_the_three_formats_in_their_kinds(data: bytes) -> None:
    size, left, right = colours(data)
    assert size == (64, 48)
    assert near(left, RED)
    assert near(right, BLUE)


@pytest.mark.parametrize(
    ("orientation", "size", "left", "right"), [(3, (64, 48), BLUE, RED), (2, (64, 48), BLUE, RED), (6, (48, 64), None, None)]
)
def test_photos_are_turned_upright(
    orientation: int, size: tuple[int, int], left: tuple[int, int, int] | None, right: tuple[int, int, int] | None
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = colours(saved(two_halves(), "JPEG", quality=95, exif=exif))
    assert found[0] == size
    assert left is None or near(found[1], left)
    assert right is None or near(found[2], right)


def test_what_is_transparent_is_black() -> None:
    image = two_halves(mode="RGBA")
    image.paste((0, 255, 0, 0), (0, 0, 32, 48))
    _, left, right = colours(saved(image, "PNG"))
    assert near(left, (0, 0, 0))
    assert near(right, BLUE)


def test_sixteen_bits_keep_their_brightness() -> None:
    _, left, _ = colours(saved(Image.new("I;16", (64, 48), 0x8000), "PNG"))
    assert near(left, (128, 128, 128))


@pytest.mark.parametrize(
    ("size", "made"), [((1, 1), (2, 2)), ((3, 1), (2, 2)), ((65, 49), (64, 48)), ((4096, 2), (4096, 2)), ((5, 300), (4, 300))]
)
def test_every_size_becomes_even(size: tuple[int, int], made: tuple[int, int]) -> None:
    found, left, _ = colours(saved(Image.new("RGB", size, RED), "PNG"))
    assert found == made
    assert near(left, RED)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    ("size", "canvas", "made"),
    [((4096, 3072), (640, 360), (640, 480)), ((3838, 4096), (1920, 1080), (1920, 2048)), ((1200, 400), (640, 360), (1080, 360))],
)
def test_large_ones_are_made_smaller_but_still_cover_the_canvas(
    kind: str, size: tuple[int, int], canvas: tuple[int, int], made: tuple[int, int]
) -> None:
    found, left, right = colours(saved(two_halves(*size), kind), *canvas)
    assert found == made
    assert near(left, RED)
    assert near(right, BLUE)


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"",
        lambda: b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><rect width='9' height='9'/></svg>",
        lambda: b"<?xml version='1.0'?><!DOCTYPE svg [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><svg>&x;</svg>",
        lambda: saved(two_halves(), "GIF"),
        lambda: saved(two_halves(), "WEBP"),
        lambda: saved(two_halves(), "TIFF"),
        lambda: saved(two_halves(), "PPM"),
        lambda: saved(two_halves(), "PNG")[:-200],
        lambda: saved(two_halves(400, 400), "JPEG")[:300],
        lambda: b"BM" + bytes(range(256)),
        lambda: b"\x89PNG\r\n\x1a\n" + bytes(300),
        lambda: saved(Image.new("L", (4098, 8)), "PNG"),
        lambda: saved(Image.new("L", (8, 4098)), "JPEG"),
    ],
    ids=["empty", "svg", "xml", "gif", "webp", "tiff", "ppm", "cut-png", "cut-jpeg", "no-bmp", "no-png", "wide", "high"],
)
def test_everything_else_is_no_picture(make: Callable[[], bytes]) -> None:
    with pytest.raises(NoPicture):
        decode(make(), 640, 360)
