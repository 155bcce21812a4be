"""Between PyAV's frames and the mixer's pictures, without copying pixels where the format allows it."""

from typing import Literal

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Colorspace

from mixer.picture import Picture, Plane, Planes

Pixels = npt.NDArray[np.uint8]

# Values of AVColorSpace in VideoFrame.colorspace; PyAV names only those of swscale.
_BT709 = 1
_BT601 = 6  # SMPTE 170M
_RARE = {7: Colorspace.SMPTE240M, 9: Colorspace.BT2020, 10: Colorspace.BT2020}


def picture_of(frame: VideoFrame, rotation: int = 0) -> Picture:
    """The decoded frame as the mixer's picture, a view of its memory. `rotation`: degrees clockwise, in quarters.

    Only 4:2:0 with 8 bits in BT.601 or BT.709 is taken as it is; anything else is converted here.
    """
    matrix, full_range = _colours(frame)
    if frame.format.name not in ("yuv420p", "yuvj420p") or frame.colorspace in _RARE:
        frame = frame.reformat(
            format="yuv420p",
            src_colorspace=_RARE.get(frame.colorspace, swscale_matrix(matrix)),
            dst_colorspace=Colorspace.ITU601,
            src_color_range=ColorRange.JPEG if full_range else ColorRange.MPEG,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )
        matrix, full_range = "bt601", False
    return Picture(planes_of(frame), rotation % 360, matrix, full_range)


def rgb_of(frame: VideoFrame, rotation: int = 0) -> Pixels:
    """The decoded frame as people see it: RGB in full range, of the shape (height, width, 3), turned upright. An odd size is kept."""
    matrix, full_range = _colours(frame)
    rgb = frame.reformat(
        format="rgb24",
        src_colorspace=_RARE.get(frame.colorspace, swscale_matrix(matrix)),
        src_color_range=ColorRange.JPEG if full_range else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        threads=1,
    ).to_ndarray()
    return np.ascontiguousarray(np.rot90(rgb, -rotation // 90))


def planes_of(frame: VideoFrame) -> Planes:
    """Views of the planes of a yuv420p frame; an odd last column or row is left out."""
    width, height = frame.width // 2, frame.height // 2
    y, u, v = frame.planes
    return Planes(_view(y, 2 * width, 2 * height), _view(u, width, height), _view(v, width, height))


def frame_of(planes: Planes) -> VideoFrame:
    """A yuv420p frame, tagged with the canvas's colours, on the memory of `planes`; it sees what is drawn there later."""
    # Not from_numpy_buffer(): it loses rows when the height is not a multiple of four (PyAV 18.1).
    frame = VideoFrame.from_dlpack((planes.y, planes.u, planes.v), "yuv420p")
    frame.colorspace = _BT601
    frame.color_range = ColorRange.MPEG
    return frame


def swscale_matrix(matrix: Literal["bt601", "bt709"]) -> Colorspace:
    return Colorspace.ITU709 if matrix == "bt709" else Colorspace.ITU601


def _colours(frame: VideoFrame) -> tuple[Literal["bt601", "bt709"], bool]:
    """Matrix and full range, as the sender says or, when it does not, as senders of WebRTC do it."""
    full_range = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj") or frame.format.is_rgb
    return "bt709" if frame.colorspace == _BT709 else "bt601", full_range


def _view(plane: VideoPlane, width: int, height: int) -> Plane:
    rows: Plane = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # type: ignore[call-overload]  # a buffer to Python 3.12
    return rows[:height, :width]
