"""What the uncompressed header of a VP9 frame tells (VP9 bitstream specification, section 6.2): keyframe or not, and its size."""

from recorder.rtp.depacketisers.bits import Bits

Size = tuple[int, int]

_HEADER_BYTES = 20  # enough for everything that is read here
_SYNC_CODE = 0x498342
_RGB = 7  # color_space
_REFERENCES = 8
_UNKNOWN: Size = (0, 0)


class FrameHeaders:
    """Reads the headers of one stream; remembers the sizes of the frames that later ones refer to."""

    def __init__(self) -> None:
        self._sizes = [_UNKNOWN] * _REFERENCES

    def read(self, frame: bytes | bytearray) -> tuple[bool, Size]:
        """Whether it is a keyframe, and width and height; zeros when they are those of a frame that never came.

        Raises:
            ValueError: it is no VP9 frame.
        """
        bits = Bits(bytes(frame[:_HEADER_BYTES]))
        if bits.read(2) != 2:
            raise ValueError("VP9 frame without its marker")
        profile = bits.read(1) | bits.read(1) << 1
        if profile == 3:
            bits.read(1)
        if bits.read(1):  # show_existing_frame
            return False, self._sizes[bits.read(3)]
        inter, shown, resilient = bits.read(1), bits.read(1), bits.read(1)
        if not inter:
            _skip_colours(bits, profile)
            size = _size(bits)
            self._sizes = [size] * _REFERENCES
            return True, size
        intra_only = 0 if shown else bits.read(1)
        if not resilient:
            bits.read(2)
        if intra_only:
            if profile:
                _skip_colours(bits, profile)
            elif bits.read(24) != _SYNC_CODE:
                raise ValueError("VP9 frame without its sync code")
            refreshed = bits.read(8)
            size = _size(bits)
        else:
            refreshed = bits.read(8)
            references = [bits.read(4) >> 1 for _ in range(3)]
            size = next((self._sizes[index] for index in references if bits.read(1)), None) or _size(bits)
        self._sizes = [size if refreshed >> index & 1 else old for index, old in enumerate(self._sizes)]
        return False, size


def _skip_colours(bits: Bits, profile: int) -> None:
    if bits.read(24) != _SYNC_CODE:
        raise ValueError("VP9 frame without its sync code")
    if profile >= 2:
        bits.read(1)
    if bits.read(3) != _RGB:
        bits.read(1)
        if profile & 1:
            bits.read(3)
    elif profile & 1:
        bits.read(1)


def _size(bits: Bits) -> Size:
    return bits.read(16) + 1, bits.read(16) + 1
