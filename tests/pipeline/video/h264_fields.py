"""H.264 written by hand: grey pictures as frames or pairs of fields, raw samples for intra, all skipped for the rest.

No free encoder writes field pictures (PAFF), as camcorders and broadcasters do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

MACROBLOCK_PX = 16
FRAME_NUM_BITS, ORDER_BITS = 4, 8
I_PCM = 25


class Writer:
    """Bits, most significant first."""

    def __init__(self) -> None:
        self.bits: list[str] = []

    def u(self, value: int, bits: int) -> Writer:
        self.bits.append(format(value, f"0{bits}b") if bits else "")
        return self

    def ue(self, value: int) -> Writer:
        code = format(value + 1, "b")
        self.bits.append("0" * (len(code) - 1) + code)
        return self

    def align(self, bit: str = "0") -> Writer:
        count = sum(map(len, self.bits))
        self.bits.append(bit * (-count % 8))
        return self

    def nal(self, header: int) -> bytes:
        """With its stop bit, start code and escapes."""
        text = "".join(self.bits) + "1"
        text += "0" * (-len(text) % 8)
        raw = int(text, 2).to_bytes(len(text) // 8, "big")
        escaped, zeros = bytearray(), 0
        for byte in raw:
            if zeros >= 2 and byte <= 3:
                escaped.append(3)
                zeros = 0
            zeros = zeros + 1 if not byte else 0
            escaped.append(byte)
        return b"\x00\x00\x00\x01" + bytes([header]) + bytes(escaped)


def parameter_sets(columns: int, rows: int) -> bytes:
    """Main profile, pictures of `columns` x `rows` macroblocks, fields allowed."""
    sps = Writer().u(77, 8).u(0, 8).u(40, 8).ue(0).ue(FRAME_NUM_BITS - 4).ue(0).ue(ORDER_BITS - 4)
    sps.ue(2).u(0, 1).ue(columns - 1).ue(rows // 2 - 1).u(0, 1).u(0, 1).u(1, 1).u(0, 1).u(0, 1)
    pps = Writer().ue(0).ue(0).u(0, 1).u(0, 1).ue(0).ue(0).ue(0).u(0, 1).u(0, 2).ue(0).ue(0).ue(0)
    pps.u(0, 1).u(0, 1).u(0, 1)
    return sps.nal(0x67) + pps.nal(0x68)


def slice_nal(
    number: int, grey: int | None, macroblocks: int, *, field: int | None, idr: bool, second: bool = False
) -> bytes:
    """One slice that is a whole frame or field: raw samples of one grey, or (None) a copy of the reference."""
    bits = Writer().ue(0).ue(7 if grey is not None else 5).ue(0).u(number % (1 << FRAME_NUM_BITS), FRAME_NUM_BITS)
    if field is None:
        bits.u(0, 1)
    else:
        bits.u(1, 1).u(field, 1)
    # The second field of an IDR picture is no IDR picture itself.
    is_idr = idr and not second
    if is_idr:
        bits.ue(0)
    bits.u((2 * number + (field or 0)) % (1 << ORDER_BITS), ORDER_BITS)
    if grey is None:
        bits.u(0, 1).u(0, 1)
    if is_idr:
        bits.u(0, 1).u(0, 1)
    else:
        bits.u(0, 1)
    bits.ue(0)
    if grey is None:
        bits.ue(macroblocks)
    else:
        for _ in range(macroblocks):
            bits.ue(I_PCM).align()
            bits.bits.append(format(grey, "08b") * 256 + format(128, "08b") * 128)
    return bits.nal(0x65 if is_idr else 0x61)


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture to write."""

    grey: int | None
    """None copies the one before."""
    fields: bool
    idr: bool = False


def coded(pictures: Sequence[Picture], columns: int = 4, rows: int = 4) -> list[list[bytes]]:
    """For each picture its access units: one for a frame, two for a pair of fields."""
    units: list[list[bytes]] = []
    number = 0
    for picture in pictures:
        number = 0 if picture.idr else number
        head = parameter_sets(columns, rows) if picture.idr else b""
        macroblocks = columns * rows // (2 if picture.fields else 1)
        if picture.fields:
            pair = [
                slice_nal(number, picture.grey, macroblocks, field=f, idr=picture.idr, second=bool(f)) for f in (0, 1)
            ]
            units.append([head + pair[0], pair[1]])
        else:
            units.append([head + slice_nal(number, picture.grey, macroblocks, field=None, idr=picture.idr)])
        number += 1
    return units


def write(
    path: Path, pictures: Sequence[Picture], *, packet_per_field: bool, fps: int = 25, tick_for_second: bool = True
) -> Path:
    """Mux into the container of the suffix, one packet a picture, or one a field."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width = stream.height = 64
        stream.codec_context.extradata = parameter_sets(4, 4)
        base = Fraction(1, 2 * fps)
        for number, units in enumerate(coded(pictures)):
            parts = units if packet_per_field else [b"".join(units)]
            for second, data in enumerate(parts):
                packet = av.Packet(data)
                packet.stream, packet.time_base = stream, base
                packet.dts = 2 * number + second
                packet.pts = packet.dts if tick_for_second or not second else None
                packet.is_keyframe = pictures[number].idr and not second
                container.mux_one(packet) if hasattr(container, "mux_one") else container.mux(packet)
    return path
