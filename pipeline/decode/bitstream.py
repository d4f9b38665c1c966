"""What the first bytes of a coded picture tell without decoding it: is it shown, may decoding start here."""

from __future__ import annotations

from collections.abc import Iterator

from av.packet import Packet
from av.video.stream import VideoStream

NAL_CODECS = frozenset({"h264", "hevc"})
H264_IDR, H264_SEI = 5, 6
H264_SLICES = frozenset({1, 2, 5})
HEVC_IRAP = range(16, 24)
HEVC_SPS = 33
SEI_RECOVERY_POINT = 6
TWO_BIT_TYPE_CODECS = frozenset({"msmpeg4v2", "msmpeg4v3", "wmv1"})
"""Coded pictures begin with two bits of type, 0 for intra."""
MPEG4_EMPTY_BYTES = 32
"""A coded picture of MPEG-4 part 2 has more bytes than this; a "not coded" one, which shows nothing, has fewer."""


def shows_picture(codec: str, packet: Packet[VideoStream]) -> bool | None:
    """Whether decoding `packet` puts out a picture: yes, no, or None where only decoding can tell."""
    if codec == "vp8":
        return bool(memoryview(packet)[0] >> 4 & 1) if packet.size else False
    if codec == "vp9":
        return _vp9_shows(packet)
    if codec == "mpeg4" and packet.size < MPEG4_EMPTY_BYTES:
        return None
    return packet.size > 0


def _vp9_shows(packet: Packet[VideoStream]) -> bool:
    """Read show_frame (VP9 bitstream specification, 6.2); a superframe (annex B) holds one shown frame."""
    data = memoryview(packet)
    if not data or data[-1] & 0xE0 == 0xC0:
        return bool(data)
    profile = (data[0] >> 5 & 1) | (data[0] >> 4 & 1) << 1
    bit = 2 if profile == 3 else 3
    show_existing = data[0] >> bit & 1
    return bool(show_existing or data[0] >> (bit - 2) & 1)


def starts_decoding(codec: str, packet: Packet[VideoStream], extradata: bytes | None) -> bool:
    """Whether a packet that the container calls a key frame is one: some containers call every packet so."""
    if codec in TWO_BIT_TYPE_CODECS:
        return bool(packet.size) and memoryview(packet)[0] >> 6 == 0
    if codec == "mpeg4":
        return _mpeg4_intra(packet)
    if codec not in NAL_CODECS:
        return True
    for nal in nal_units(packet, nal_length_bytes(codec, extradata)):
        if codec == "hevc":
            if (nal[0] >> 1 & 0x3F) < 32:
                return (nal[0] >> 1 & 0x3F) in HEVC_IRAP
            continue
        kind = nal[0] & 0x1F
        if kind == H264_IDR or (kind == H264_SEI and len(nal) > 1 and nal[1] == SEI_RECOVERY_POINT):
            return True
        if kind in H264_SLICES:
            return False
    return False


def _mpeg4_intra(packet: Packet[VideoStream]) -> bool:
    """Read vop_coding_type after the first VOP start code (ISO/IEC 14496-2, 6.2.5)."""
    data = bytes(packet)
    where = data.find(b"\x00\x00\x01\xb6")
    return 0 <= where < len(data) - 4 and data[where + 4] >> 6 == 0


def nal_length_bytes(codec: str, extradata: bytes | None) -> int:
    """Bytes of the length before each NAL unit (ISO/IEC 14496-15); 0 for start codes."""
    if not extradata or extradata[0] != 1:
        return 0
    where = 4 if codec == "h264" else 21
    return (extradata[where] & 3) + 1 if len(extradata) > where else 0


def nal_units(data: Packet[VideoStream] | bytes, length_bytes: int) -> Iterator[memoryview]:
    """Split a packet into NAL units, lazily."""
    view = memoryview(data)
    if length_bytes:
        start = 0
        while start + length_bytes < len(view):
            size = int.from_bytes(view[start : start + length_bytes], "big")
            start += length_bytes
            if size:
                yield view[start : start + size]
            start += size
        return
    raw = bytes(view)
    start = raw.find(b"\x00\x00\x01")
    while start >= 0:
        after = raw.find(b"\x00\x00\x01", start + 3)
        nal = view[start + 3 : after if after >= 0 else len(view)]
        if len(nal):
            yield nal
        start = after


def has_one_temporal_layer(extradata: bytes | None) -> bool:
    """Whether a HEVC stream has no temporal sub-layers.

    Only then is a "sub-layer non-reference" picture referenced by none at all (ITU-T H.265, 3.140). The first byte of a
    sequence parameter set holds sps_max_sub_layers_minus1.
    """
    if not extradata:
        return False
    sets = list(_hevc_parameter_sets(extradata))
    return bool(sets) and all(len(nal) > 2 and nal[2] >> 1 & 7 == 0 for nal in sets)


def _hevc_parameter_sets(extradata: bytes) -> Iterator[memoryview]:
    if extradata[0] != 1:
        yield from (nal for nal in nal_units(extradata, 0) if nal[0] >> 1 & 0x3F == HEVC_SPS)
        return
    view, start = memoryview(extradata), 23
    for _ in range(extradata[22] if len(extradata) > 22 else 0):
        kind, count = view[start] & 0x3F, int.from_bytes(view[start + 1 : start + 3], "big")
        start += 3
        for _ in range(count):
            size = int.from_bytes(view[start : start + 2], "big")
            if kind == HEVC_SPS:
                yield view[start + 2 : start + 2 + size]
            start += 2 + size
