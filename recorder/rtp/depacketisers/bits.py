"""Reading the headers of video bitstreams bit by bit."""


class Bits:
    """The first bytes of a header, from the most significant bit on."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def read(self, count: int) -> int:
        """Raises ValueError at the end of the data."""
        self._left -= count
        if self._left < 0:
            raise ValueError("a header ends early")
        return self._value >> self._left & ((1 << count) - 1)

    def ue(self) -> int:
        """Exp-Golomb code of H.264 section 9.1, which is also uvlc() of AV1 section 4.10.3."""
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros > 31:
                raise ValueError("broken Exp-Golomb code")
        return (1 << zeros) - 1 + self.read(zeros)

    def se(self) -> int:
        code = self.ue()
        return (code + 1) // 2 if code & 1 else -(code // 2)
