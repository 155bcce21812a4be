"""A short-lived process that downloads one image and turns it into raw pixels: `python -m recorder.agent.image_helper`.

What it reads comes from hosts that customers name, so it is limited before it begins, and after the download it can open
nothing any more. Started by root it becomes nobody first, for root no limit on processes holds. The memory of the service's other
processes is closed to it (`recorder/private_memory.py`); files that its user may read are open to it until the download is
over. It gets a request as JSON on stdin, writes pixels to stdout (the planes Y, U, V of 4:2:0 in BT.601, full
range) and one line of JSON to stderr. It inherits no secrets and knows none but the URL.
"""

import contextlib
import encodings.idna
import io
import json
import os
import resource
import signal
import struct
import sys
from typing import Any, Final

from PIL import Image, ImageOps, MpoImagePlugin, TiffImagePlugin

from recorder.outbound import AddressPolicy, DownloadFailed, ForbiddenAddress, download

FORMATS: Final = ("JPEG", "BMP", "PNG")
MOST_BYTES: Final = 6 << 20
MOST_SIDE: Final = 4096
# What is else loaded when it is needed is loaded now: later no file can be opened, and nobody may not read every installation.
_LOADED: Final = (MpoImagePlugin, TiffImagePlugin, encodings.idna)
Image.preinit()
Image.MAX_IMAGE_PIXELS = None  # ours is another bound
_NOBODY: Final = 65534  # user and group; on Linux they own nothing
_MEMORY_BYTES: Final = 640 << 20  # a progressive JPEG of the largest size needs 420 MB
# What Pillow raises for files that are not as they should be. Whatever else comes ends the process, which is as good.
_BROKEN: Final = (OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, OverflowError, struct.error)


class NoPicture(Exception):
    """What was downloaded is no picture that can be shown."""


def main() -> int:
    request = json.loads(sys.stdin.buffer.readline())
    seconds = float(request["seconds"])
    _limit(seconds)
    _drop_root()
    try:
        data = download(request["url"], AddressPolicy(request["networks"]), most_bytes=MOST_BYTES, seconds=seconds)
        _seal()
        width, height, pixels = decode(data, int(request["width"]), int(request["height"]))
    except ForbiddenAddress:
        return _failed("address", "its host's address is not allowed")
    except DownloadFailed as error:
        return _failed("download", str(error))
    except NoPicture as error:
        return _failed("picture", str(error))
    sys.stdout.buffer.write(pixels)
    sys.stdout.buffer.flush()
    _say(width=width, height=height)
    return 0


def decode(data: bytes, width: int, height: int) -> tuple[int, int, bytes]:
    """Width, height and planes of a JPEG, BMP or PNG, turned upright, as large as just covers the canvas, or as it is when smaller.

    Raises:
        NoPicture: it is none of them, broken, or too large.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if max(image.size) > MOST_SIDE:  # known from the header: nothing has been decoded
                raise NoPicture(f"larger than {MOST_SIDE} x {MOST_SIDE}")
            return _planes(image, width, height)
    except MemoryError as error:
        raise NoPicture("takes too much memory") from error
    except _BROKEN as error:
        raise NoPicture(f"not a JPEG, BMP or PNG ({type(error).__name__})") from error


def _planes(image: Image.Image, canvas_width: int, canvas_height: int) -> tuple[int, int, bytes]:
    # A JPEG is made smaller while it is decoded. How it is turned is not known yet.
    image.draft("RGB", (max(canvas_width, canvas_height),) * 2)
    picture = ImageOps.exif_transpose(_opaque(image))
    scale = min(1.0, max(canvas_width / picture.width, canvas_height / picture.height))
    width, height = (max(2, round(side * scale) // 2 * 2) for side in picture.size)
    if scale < 1 or min(picture.size) < 2:
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    y, u, v = picture.crop((0, 0, width, height)).convert("YCbCr").split()
    return width, height, b"".join(plane.tobytes() for plane in (y, u.reduce(2), v.reduce(2)))


def _opaque(image: Image.Image) -> Image.Image:
    """In RGB, what is transparent on black."""
    if image.mode.startswith("I"):  # 16 bits
        return image.point(lambda value: value / 256).convert("L").convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    black = Image.new("RGBA", image.size, (0, 0, 0, 255))
    black.alpha_composite(image.convert("RGBA"))
    flat = black.convert("RGB")
    flat.info = image.info
    return flat


def _limit(seconds: float) -> None:
    """Bounds that hold whatever happens in here, and when nobody is left to end us."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    processor = max(1, round(seconds))
    resource.setrlimit(resource.RLIMIT_CPU, (processor, processor + 1))  # a signal that tells what it was, then the end
    for kind, most in (
        (resource.RLIMIT_AS, _MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, MOST_SIDE * MOST_SIDE * 3 // 2),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))


def _drop_root() -> None:
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):  # a root that may not change its user, in a container
            os.setgroups([])
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)


def _seal() -> None:
    """From here on no file and no socket can be opened: what decodes could be made to do so."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


def _failed(why: str, detail: str) -> int:
    _say(why=why, detail=detail)
    return 1


def _say(**words: Any) -> None:
    sys.stderr.write(json.dumps(words) + "\n")


if __name__ == "__main__":
    sys.exit(main())
