"""The picture size in an H.264 sequence parameter set (ITU-T H.264 section 7.3.2.1.1)."""

from recorder.rtp.depacketisers.bits import Bits

# Profiles whose SPS carries chroma format and scaling lists.
_HIGH_PROFILES = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}


def picture_size(sps: bytes) -> tuple[int, int]:
    """Width and height after cropping.

    Raises:
        ValueError: the parameter set is broken.
    """
    bits = Bits(sps[1:80].replace(b"\x00\x00\x03", b"\x00\x00"))  # 7.4.1: emulation prevention
    profile = bits.read(8)
    bits.read(16)
    bits.ue()
    chroma, separate = 1, 0
    if profile in _HIGH_PROFILES:
        chroma = bits.ue()
        if chroma == 3:
            separate = bits.read(1)
        bits.ue()
        bits.ue()
        bits.read(1)
        if bits.read(1):
            _skip_scaling_lists(bits, 8 if chroma != 3 else 12)
    bits.ue()
    order = bits.ue()
    if order == 0:
        bits.ue()
    elif order == 1:
        bits.read(1)
        bits.se()
        bits.se()
        for _ in range(bits.ue() & 0xFF):
            bits.se()
    bits.ue()
    bits.read(1)
    width = (bits.ue() + 1) * 16
    map_units = bits.ue() + 1
    frame_only = bits.read(1)
    height = map_units * 16 * (2 - frame_only)
    if not frame_only:
        bits.read(1)
    bits.read(1)
    if bits.read(1):
        left, right, top, bottom = (bits.ue() for _ in range(4))
        unit_x = 1 if chroma in (0, 3) or separate else 2
        unit_y = (2 if chroma == 1 and not separate else 1) * (2 - frame_only)
        width -= unit_x * (left + right)
        height -= unit_y * (top + bottom)
    if width <= 0 or height <= 0:
        raise ValueError("picture without a size")
    return width, height


def _skip_scaling_lists(bits: Bits, count: int) -> None:
    for index in range(count):
        if not bits.read(1):
            continue
        last = following = 8
        for _ in range(16 if index < 6 else 64):
            if following:
                following = (last + bits.se()) % 256
            last = following or last
