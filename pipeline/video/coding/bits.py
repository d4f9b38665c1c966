"""Bits of a header, most significant first."""

from __future__ import annotations


class OutOfBitsError(ValueError):
    """The header ends before its last field: it is damaged."""


class Bits:
    """Reads fields from the front of `data`."""

    __slots__ = ("_left", "_value")

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def u(self, bits: int) -> int:
        """An unsigned field of so many bits.

        Raises:
            OutOfBitsError: there are not so many left (all methods).
        """
        self._left = left = self._left - bits
        if left < 0:
            raise OutOfBitsError
        return self._value >> left & ((1 << bits) - 1)

    def ue(self) -> int:
        """An unsigned Exp-Golomb code (ITU-T H.264, 9.1)."""
        if self._left <= 0:
            raise OutOfBitsError
        rest = self._value & ((1 << self._left) - 1)
        digits = rest.bit_length()
        zeros = self._left - digits
        # As many digits follow the first one as zeros precede it.
        self._left = left = digits - zeros - 1
        if zeros > 32 or left < 0:
            raise OutOfBitsError
        return (rest >> left) - 1

    def se(self) -> int:
        """A signed Exp-Golomb code."""
        code = self.ue()
        return (code + 1) // 2 if code & 1 else -(code // 2)

    def uvlc(self) -> int:
        """AV1's variable-length code, which is Exp-Golomb without its limit (AV1, 4.10.3)."""
        return self.ue()
