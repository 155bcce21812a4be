"""Scales one place's pictures by swscale: the mixer's `Scaler`."""

from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from mixer.fit import Tile
from mixer.picture import Picture, Planes
from recorder.media.pictures import frame_of, planes_of, swscale_matrix


class Scaler:
    """Crops, scales and converts to the canvas's colours in one pass. Keep one per place: what swscale sets up for a size is
    used again for the next picture of that size.

    Area averaging is the cheapest of swscale's filters that stays above 38 dB against anti-aliased Lanczos at every
    reduction (44 dB and more; bilinear 41 dB at twice the time below a half); enlarging it is bilinear.
    """

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, picture: Picture, crop: Tile, width: int, height: int) -> Planes:
        """The part `crop` of the picture at this size. It may be a view of the picture when nothing has to be done."""
        scaled = self._reformatter.reformat(
            frame_of(picture.planes.cut(crop)),
            width=width,
            height=height,
            src_colorspace=swscale_matrix(picture.matrix),
            dst_colorspace=Colorspace.ITU601,
            src_color_range=ColorRange.JPEG if picture.full_range else ColorRange.MPEG,
            dst_color_range=ColorRange.MPEG,
            interpolation=Interpolation.AREA,
            threads=1,  # more threads cost more CPU and gain nothing: recordings run in parallel
        )
        return planes_of(scaled)
