"""Scales one place's pictures by swscale: the mixer's `Scaler`."""

from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from mixer.fit import Tile
from mixer.picture import Picture, Planes
from recorder.media.pictures import frame_of, planes_of, swscale_matrix

_AREA_REDUCTION = 9  # to how small a part of its width or height area averaging may bring a picture


class Scaler:
    """Crops, scales and converts to the canvas's colours in one pass. Keep one per place: what swscale sets up for a size is
    used again for the next picture of that size.

    Area averaging is the cheapest of swscale's filters, and down to a ninth it stays well above 38 dB against anti-aliased
    Lanczos (bilinear does not, at one and a half times its cost); enlarging it is bilinear. Beyond a ninth it blurs too
    much: there bicubic keeps above 38 dB, at three times the cost of a tile that is then a small one.
    """

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, picture: Picture, crop: Tile, width: int, height: int) -> Planes:
        """The part `crop` of the picture at this size. It may be a view of the picture when nothing has to be done."""
        is_far = crop.width > _AREA_REDUCTION * width or crop.height > _AREA_REDUCTION * height
        scaled = self._reformatter.reformat(
            frame_of(picture.planes.cut(crop)),
            width=width,
            height=height,
            src_colorspace=swscale_matrix(picture.matrix),
            dst_colorspace=Colorspace.ITU601,
            src_color_range=ColorRange.JPEG if picture.full_range else ColorRange.MPEG,
            dst_color_range=ColorRange.MPEG,
            interpolation=Interpolation.BICUBIC if is_far else Interpolation.AREA,
            threads=1,  # more threads cost more CPU and gain nothing: recordings run in parallel
        )
        return planes_of(scaled)
