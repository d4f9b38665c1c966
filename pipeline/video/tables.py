"""The sample tables of an mp4 file to a track, without its packets (ISO/IEC 14496-12): for files that are far away.

Only what is plain is believed: one edit that hides nothing, sync samples named, no fragments, no fields. All else, and
whatever a look at some packets contradicts, is read packet by packet.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipeline.video.boxes import MOST_TABLE_BYTES, boxes_of
from pipeline.video.coding import header_reader
from pipeline.video.coding.h264 import H264Headers
from pipeline.video.packets import Demuxed
from pipeline.video.ranges import RangeFile
from pipeline.video.tracks import Track

TABLE_CODECS = frozenset({"h264", "hevc", "vp9", "av1"})
LOOKS = (0.0, 0.25, 0.5, 0.75, 0.98)
"""Where in the stream packets are compared with the tables."""
LOOK_PACKETS = 4
CONTAINERS = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts"})


@dataclass(frozen=True, slots=True)
class SampleTable:
    """When the samples of one track are shown, and which of them are sync samples."""

    pts: NDArray[np.int64]
    """In decoding order, in ticks of the track's own time scale."""
    is_sync: NDArray[np.bool_]
    end_bytes: int
    """Where the last sample ends in the file."""


def read_table(moov: bytes, track_id: int) -> SampleTable | None:
    """The table of one track; None where it is not plain."""
    try:
        boxes = list(boxes_of(moov))
        if any(kind == b"mvex" for kind, _ in boxes):
            return None
        movie_scale = next(_time_scale(body) for kind, body in boxes if kind == b"mvhd")
        for kind, body in boxes:
            if kind == b"trak":
                parts = dict(_flattened(body))
                if _track_id(parts[b"tkhd"]) == track_id:
                    return _table(parts, movie_scale)
    except (struct.error, KeyError, ValueError, IndexError, StopIteration):
        return None
    return None


def _flattened(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    for kind, body in boxes_of(data):
        if kind in CONTAINERS:
            yield from _flattened(body)
        else:
            yield kind, body


def _time_scale(body: bytes) -> int:
    scale: int = struct.unpack_from(">I", body, 20 if body[0] else 12)[0]
    return scale


def _track_id(body: bytes) -> int:
    number: int = struct.unpack_from(">I", body, 20 if body[0] else 12)[0]
    return number


def _table(parts: dict[bytes, bytes], movie_scale: int) -> SampleTable | None:
    scale = _time_scale(parts[b"mdhd"])
    deltas = np.repeat(*_pairs(parts[b"stts"], ">i4"))
    count = len(deltas)
    if not count or b"stss" not in parts:
        return None
    dts = np.concatenate([[0], np.cumsum(deltas[:-1])]).astype(np.int64)
    pts = dts
    if b"ctts" in parts:
        offsets = np.repeat(*_pairs(parts[b"ctts"], ">i4"))
        if len(offsets) != count:
            return None
        pts = dts + offsets
    shift = _edit_shift(parts.get(b"elst"), pts, int(deltas[-1]), scale, movie_scale)
    if shift is None:
        return None
    sync = np.zeros(count, dtype=bool)
    numbers = np.frombuffer(parts[b"stss"], dtype=">u4", offset=8)
    if not len(numbers) or numbers.max() > count or numbers.min() < 1:
        return None
    sync[numbers.astype(np.int64) - 1] = True
    return SampleTable(pts + shift, sync, _end_bytes(parts, count))


def _pairs(body: bytes, kind: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Values and how often each comes, of `stts` and `ctts`."""
    count = struct.unpack_from(">I", body, 4)[0]
    pairs = np.frombuffer(body, dtype=kind, count=2 * count, offset=8).reshape(-1, 2).astype(np.int64)
    if (pairs[:, 0] < 0).any() or pairs[:, 0].sum() > MOST_TABLE_BYTES:
        raise ValueError("a count that no file can have")
    return pairs[:, 1], pairs[:, 0]


def _edit_shift(body: bytes | None, pts: NDArray[np.int64], last_step: int, scale: int, movie_scale: int) -> int | None:
    """What the edit list adds to the ticks; None where it does more than to move them."""
    if body is None:
        return 0
    wide, count = body[0], struct.unpack_from(">I", body, 4)[0]
    entry = struct.Struct(">QqI" if wide else ">IiI")
    edits = [entry.unpack_from(body, 8 + i * entry.size) for i in range(count)]
    empty = 0
    if edits and edits[0][1] == -1:
        empty = round(edits.pop(0)[0] * scale / movie_scale)
    if len(edits) != 1 or edits[0][2] != 1 << 16:
        return None
    length, start = round(edits[0][0] * scale / movie_scale), edits[0][1]
    # A tick of the movie's coarser clock may be missing at the end.
    reach = int(pts.max()) - start
    if start > int(pts.min()) or (length and length < reach - scale // movie_scale):
        return None
    return int(empty - start)


def _end_bytes(parts: dict[bytes, bytes], count: int) -> int:
    """Where the last sample ends: the last chunk's place and the sizes of its samples."""
    wide = b"co64" in parts
    chunks = np.frombuffer(parts[b"co64" if wide else b"stco"], dtype=">u8" if wide else ">u4", offset=8)
    runs = np.frombuffer(parts[b"stsc"], dtype=">u4", offset=8).reshape(-1, 3)
    in_last = int(runs[-1, 1])
    fixed, total = struct.unpack_from(">II", parts[b"stsz"], 4)
    if total != count:
        raise ValueError("the tables contradict each other")
    if fixed:
        return int(chunks[-1]) + int(fixed) * in_last
    sizes = np.frombuffer(parts[b"stsz"], dtype=">u4", count=total, offset=12)
    return int(chunks[-1]) + int(sizes[-in_last:].astype(np.int64).sum())


def track_from_table(container: InputContainer, stream: VideoStream, file: RangeFile, moov: bytes) -> Track | None:
    """The track that the tables describe; None where they are not plain, or some packets contradict them."""
    codec = stream.codec_context.codec.canonical_name
    table = read_table(moov, stream.id) if codec in TABLE_CODECS else None
    if table is None or table.end_bytes > file.size_bytes or not _agrees(container, stream, table):
        return None
    return Track(
        pts=array("q", table.pts.tolist()),
        flagged_key_pts=array("q", table.pts[table.is_sync].tolist()),
        key_pts=array("q", table.pts[table.is_sync].tolist()),
        packets=len(table.pts),
    )


def _agrees(container: InputContainer, stream: VideoStream, table: SampleTable) -> bool:
    """Whether some packets say of themselves what the table says of them."""
    ticks, syncs = set(table.pts.tolist()), set(table.pts[table.is_sync].tolist())
    order = table.pts[table.is_sync]
    headers = header_reader(stream.codec_context.codec.canonical_name, stream.codec_context.extradata)
    for share in LOOKS:
        container.seek(int(order[int(share * (len(order) - 1))]), stream=stream, backward=True)
        headers.restart()
        demuxed = Demuxed(container, [stream])
        for _, packet in zip(range(LOOK_PACKETS), demuxed.packets, strict=False):
            coded = headers.read(memoryview(packet), packet.is_keyframe)
            if packet.pts not in ticks or not coded.picture or not coded.intact or packet.is_discard or coded.wait:
                return False
            if isinstance(headers, H264Headers) and headers.may_have_fields:
                return False
            if packet.is_keyframe != (packet.pts in syncs) or (packet.is_keyframe and not coded.key):
                return False
    return True
