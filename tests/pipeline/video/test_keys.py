"""Where decoding may start: rules without a file, and streams whose key frames are none."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.video import scan_video
from pipeline.video.keys import keys_of
from tests.pipeline.video.damage import read_packets, write_damaged
from tests.pipeline.video.reference import compare, decode_units, source_of
from tests.synthetic import make_video

KEYS = keys_of(np.array([0, 100, 250, 300], dtype=np.int64))


def test_a_picture_is_governed_by_the_last_key_at_or_before_it() -> None:
    assert [KEYS.governing(tick) for tick in (-7, 0, 99, 100, 251, 299, 900)] == [-1, 0, 0, 1, 2, 2, 3]


def test_a_key_that_refreshes_bit_by_bit_governs_only_what_is_whole() -> None:
    keys = keys_of(np.array([0, 100, 200], dtype=np.int64), ((100, 140),))
    assert [keys.governing(tick) for tick in (100, 139, 140, 200)] == [0, 0, 1, 2]


def test_starts_go_back_in_doubling_steps_and_end_at_the_start_of_the_file() -> None:
    keys = keys_of(np.arange(0, 1100, 100, dtype=np.int64))
    assert list(keys.starts(1050)) == [10, 9, 8, 6, 2, -1]
    assert list(keys.starts(50)) == [0, -1]
    assert list(keys_of(np.empty(0, dtype=np.int64)).starts(50)) == [-1]


@pytest.mark.parametrize(("codec", "keys"), [("h261", 0), ("h263", 5)])
def test_avi_calls_every_packet_a_key_frame(tmp_path: Path, codec: str, keys: int) -> None:
    path = make_video(tmp_path / "video.avi", frames=60, gop=13, codec=codec, size=(144, 176))
    for fps in (Fraction(1), Fraction(7)):
        info = compare(path, fps, clip_frames=3, unit_clips=1)
    assert (info.frames_found, len(info.key_pts)) == (60, keys)


def test_a_palette_comes_with_the_first_packet_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    path = tmp_path / "video.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("rawvideo", rate=5)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "pal8"
        palette = rng.integers(0, 255, (256, 4), dtype=np.uint8)
        for _ in range(23):
            shown = rng.integers(0, 255, (16, 32), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray((shown, palette), format="pal8")))
        container.mux(stream.encode(None))
    compare(path, Fraction(2), clip_frames=3, unit_clips=1)


@pytest.mark.parametrize("bframes", [0, 2])
@pytest.mark.parametrize("suffix", [".mkv", ".ts"])
def test_a_refresh_bit_by_bit_that_cannot_be_started_at(tmp_path: Path, suffix: str, bframes: int) -> None:
    """At a recovery point with frame_num 0, or after B-frames, libavcodec lacks a reference and shows grey."""
    options = {"preset": "veryfast", "intra-refresh": "1", "x264-params": "slices=2"}
    path = make_video(tmp_path / f"video{suffix}", frames=150, gop=24, bframes=bframes, options=options, size=(96, 160))
    for fps in (Fraction(2), Fraction(25)):
        info = compare(path, fps, clip_frames=5, unit_clips=1)
    assert len(info.key_waits) >= 4


def test_damage_in_a_refresh_bit_by_bit_lasts_to_the_next(tmp_path: Path) -> None:
    """The picture is not whole where one part of its refresh is lost, whether decoding begins there or goes on."""
    options = {"preset": "veryfast", "intra-refresh": "1"}
    path = make_video(tmp_path / "video.mkv", frames=120, gop=30, options=options, size=(96, 160))
    key, whole = scan_video(source_of(path)).key_waits[1]
    packets = read_packets(path)
    within = next(i for i, packet in enumerate(packets) if packet.pts is not None and key < packet.pts < whole)
    damaged = tmp_path / "damaged.mkv"
    write_damaged(path, packets, damaged, "blank", within, seed=1)
    info = scan_video(source_of(damaged))
    flags = [decode_units(info, Fraction(25), clip_frames=120, unit_clips=1)[0].is_damaged]
    flags.append(np.concatenate([c.is_damaged for c in decode_units(info, Fraction(25), clip_frames=4, unit_clips=1)]))
    for is_damaged in flags:
        assert is_damaged is not None
        healed = int(np.searchsorted(info.frame_pts, info.key_waits[2][1]))
        assert np.flatnonzero(is_damaged).tolist() == list(range(within, healed))
