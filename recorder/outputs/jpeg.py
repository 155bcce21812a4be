"""One picture as a JPEG file."""

from pathlib import Path

from recorder.media.pictures import Pixels

QUALITY = 85  # libjpeg's scale; a 720p picture has about 80 kB, 40 dB from the picture it was made of


def write(path: Path, pixels: Pixels) -> None:
    """`pixels`: RGB of the shape (height, width, 3).

    Raises:
        OSError: the disk failed.
    """
    from PIL import Image  # few recordings need it

    Image.fromarray(pixels).save(path, "JPEG", quality=QUALITY)
