"""Colours from the sender's camera to the viewer of the recording, in every matrix, range and sampling a sender may use."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from av.codec.context import CodecContext
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange

from mixer.canvas import Canvas, colour
from mixer.compositor import Compositor, Image
from mixer.fit import Size, pixels
from mixer.layouts import Options, load
from mixer.picture import Picture, Planes
from recorder.media.decode import VideoCodec, VideoDecoder
from recorder.media.encode import VideoEncoder
from recorder.media.pictures import frame_of, picture_of
from recorder.media.scale import Scaler

# Red and blue weight of luma, and the number by which streams name the matrix: ITU-T H.273 section 8.3.
MATRICES = {
    "bt601": (0.299, 0.114, 6),
    "bt709": (0.2126, 0.0722, 1),
    "bt2020": (0.2627, 0.0593, 9),
    "smpte240m": (0.212, 0.087, 7),
    "fcc": (0.3, 0.11, 4),
}
PATCHES = ("#ff0000", "#00ff00", "#0000ff", "#ffffff", "#000000", "#808080", "#e0a080", "#2040c0", "#f0e020")
CANVAS = (640, 360)

_VPX = {"crf": "4", "qmin": "0", "qmax": "4", "deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}
FINE = {"libx264": {"qp": "1", "preset": "ultrafast"}, "libvpx": _VPX, "libvpx-vp9": _VPX}


@dataclass(frozen=True, slots=True)
class Sent:
    """How a sender codes its pictures and what it says about that."""

    codec: VideoCodec
    encoder: str
    pixel_format: str = "yuv420p"
    matrix: str = "bt601"
    full: bool = False
    told: bool = True


SENT = [
    Sent("vp8", "libvpx", told=False),
    Sent("h264", "libx264", told=False),
    *(Sent("h264", "libx264", matrix=matrix, full=full) for matrix in MATRICES for full in (False, True)),
    *(Sent("h264", "libx264", pixel_format, matrix) for pixel_format in ("yuv422p", "yuv444p") for matrix in ("bt601", "bt709")),
    Sent("h264", "libx264", "yuv444p", "bt709", full=True),
    Sent("h264", "libx264", "yuv420p10le", "bt2020"),
    Sent("h264", "libx264", "yuv422p10le", "bt709"),
    Sent("h264", "libx264", "yuv420p10le", "bt709", full=True),
    Sent("vp9", "libvpx-vp9"),
    Sent("vp9", "libvpx-vp9", matrix="bt709"),
    Sent("vp9", "libvpx-vp9", matrix="bt601", full=True),
    Sent("vp9", "libvpx-vp9", "yuv444p", "bt709"),
]


def coded(text: str, matrix: str, *, full: bool, bits: int = 8) -> tuple[int, int, int]:
    """Y, U and V of `#rrggbb`."""
    red, green, blue = (value / 255 for value in bytes.fromhex(text[1:]))
    weight_red, weight_blue, _ = MATRICES[matrix]
    luma = weight_red * red + (1 - weight_red - weight_blue) * green + weight_blue * blue
    u, v = (blue - luma) / (2 - 2 * weight_blue), (red - luma) / (2 - 2 * weight_red)
    top, unit = 2**bits - 1, 2 ** (bits - 8)
    if full:
        return round(top * luma), min(round(top * u + 128 * unit), top), min(round(top * v + 128 * unit), top)
    return round((16 + 219 * luma) * unit), round((128 + 224 * u) * unit), round((128 + 224 * v) * unit)


def flat(values: tuple[int, int, int], pixel_format: str) -> VideoFrame:
    frame = VideoFrame(192, 128, pixel_format)
    depth = np.uint16 if "10le" in pixel_format else np.uint8
    for plane, value in zip(frame.planes, values, strict=True):
        plane.update(np.full(plane.buffer_size // np.dtype(depth).itemsize, value, depth).tobytes())
    return frame


def payload(sent: Sent, text: str) -> bytes:
    context = CodecContext.create(sent.encoder, "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height, context.pix_fmt = 192, 128, sent.pixel_format
    context.time_base, context.framerate = Fraction(1, 15), Fraction(15)
    context.thread_count = 1
    context.bit_rate = 5_000_000
    context.options = FINE[sent.encoder]
    if sent.told:
        context.colorspace = MATRICES[sent.matrix][2]
        context.color_range = ColorRange.JPEG if sent.full else ColorRange.MPEG
    frame = flat(coded(text, sent.matrix, full=sent.full, bits=10 if "10le" in sent.pixel_format else 8), sent.pixel_format)
    if sent.told:
        frame.colorspace, frame.color_range = context.colorspace, context.color_range
    frame.pts, frame.time_base = 0, context.time_base
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


def recorded(canvas: Canvas) -> Planes:
    """The canvas as a player decodes it from the recording."""
    encoder = VideoEncoder(width=canvas.size.width, height=canvas.size.height, fps=15, bitrate_kbps=6500)
    [packet] = encoder.encode(frame_of(canvas.planes), 0, force_keyframe=True)
    [(frame, _)] = VideoDecoder("h264").decode(packet.data, 0)
    assert (frame.colorspace, frame.color_range) == (MATRICES["bt601"][2], ColorRange.MPEG)  # and players are told so
    return picture_of(frame).planes


def assert_patches(planes: Planes) -> None:
    for place, text in zip(load(1).place(range(9), Size(*CANVAS), Options()), PATCHES, strict=True):
        tile = pixels(place.rect, Size(*CANVAS))
        x, y = (tile.x + tile.right) // 4, (tile.y + tile.bottom) // 4  # of the centre, in chroma samples
        found = int(planes.y[2 * y, 2 * x]), int(planes.u[y, x]), int(planes.v[y, x])
        assert found == pytest.approx(coded(text, "bt601", full=False), abs=2), text


@pytest.mark.parametrize("sent", SENT, ids=lambda sent: f"{sent.codec}-{sent.pixel_format}-{sent.matrix}-{sent.full}-{sent.told}")
def test_what_the_camera_saw_is_what_the_viewer_sees(sent: Sent) -> None:
    canvas = Canvas(*CANVAS)
    compositor = Compositor(canvas, Scaler)
    compositor.arrange(load(1).place(range(9), canvas.size, Options()))
    for uid, text in enumerate(PATCHES):
        [(frame, _)] = VideoDecoder(sent.codec).decode(payload(sent, text), 0)
        assert frame.format.name.removeprefix("yuvj").removeprefix("yuv") == sent.pixel_format.removeprefix("yuv")
        compositor.set_picture(uid, picture_of(frame))
    compositor.draw()
    assert_patches(canvas.planes)
    assert_patches(recorded(canvas))


def test_backgrounds_and_images_have_the_same_colours() -> None:
    canvas = Canvas(*CANVAS)
    compositor = Compositor(canvas, Scaler)
    compositor.arrange(load(1).place(range(9), canvas.size, Options()))
    images = {uid: Image(Picture(Planes.filled(Size(192, 128), colour(text)))) for uid, text in enumerate(PATCHES)}
    compositor.set_images(images)
    compositor.draw()
    assert_patches(recorded(canvas))
    for text in PATCHES:
        assert colour(text) == coded(text, "bt601", full=False)
