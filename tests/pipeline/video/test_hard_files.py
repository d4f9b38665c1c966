"""Files that collections are full of, made of real bytes, against a full decode."""

from __future__ import annotations

import shutil
import struct
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from pipeline.errors import DecodeError
from pipeline.plan.clips import plan_clips
from pipeline.values import PictureSpec
from pipeline.video import open_video, scan_video, timing_of
from pipeline.video.backend import LibavBackend
from pipeline.video.picture import PictureMaker
from tests.pipeline.video.reference import SMALL, compare, decode_units, in_units, source_of
from tests.synthetic import make_video, number_of, picture

FAST = {"preset": "ultrafast", "x264-params": "bframes=3:b-adapt=0:scenecut=0"}


PLAIN = {"preset": "ultrafast"}


def test_a_still_picture_of_an_hour_is_one(tmp_path: Path) -> None:
    gap = 61 * 60 * 25
    path = make_video(tmp_path / "still.mkv", frames=40, pts=[*range(20), *range(gap, gap + 20)])
    info = scan_video(source_of(path))
    assert (info.timestamps, info.frames_found, info.missing_tail_ns) == ("stream", 40, 0)
    assert not info.warnings
    clips = plan_clips(info, fps=Fraction(1), clip_frames=60)
    assert sum(len(clip.frame_pts) for clip in clips[1:-1]) == len(clips) - 2
    compare(path, Fraction(1), clip_frames=60, unit_clips=30)


def test_a_clock_that_runs_backwards_is_counted(tmp_path: Path) -> None:
    """Two recordings one after the other, as `cat` joins MPEG-TS: the second begins at the first one's time."""
    parts = [make_video(tmp_path / f"{i}.ts", frames=40, gop=10, options=FAST) for i in range(2)]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    info = scan_video(source_of(path))
    assert (info.timestamps, info.frames_found) == ("ordinal", 80)
    clips = decode_units(info, Fraction(5), clip_frames=3, unit_clips=2)
    assert [number_of(frame) for clip in clips for frame in clip.frames] == [i % 40 for i in range(0, 80, 5)]


def test_a_rate_of_a_frame_in_days_is_not_believed(tmp_path: Path) -> None:
    """One flipped bit in the header of an AVI file, whose frames are counted, once made a year of instants."""
    path = make_video(tmp_path / "video.avi", frames=20, bframes=2, options=FAST)
    data = bytearray(path.read_bytes())
    place = data.index(b"strh") + 8 + 20
    assert int.from_bytes(data[place : place + 4], "little") == 1
    data[place + 3] ^= 1
    path.write_bytes(data)
    info = scan_video(source_of(path))
    assert (info.timestamps, info.frames_found, info.time_base) == ("ordinal", 20, Fraction(1, 25))


@pytest.mark.parametrize("aspect", ["1:5000", "5000:1"])
def test_pixels_of_absurd_shape_are_clamped(tmp_path: Path, aspect: str) -> None:
    path = tmp_path / "video.mp4"
    with av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(2)
        for number in range(5):
            target.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        target.mux(stream.encode(None))
    data = bytearray(path.read_bytes())
    place = data.index(b"pasp") + 4
    wide, tall = (int(part).to_bytes(4, "big") for part in aspect.split(":"))
    data[place : place + 8] = wide + tall
    path.write_bytes(data)
    info = scan_video(source_of(path))
    assert info.width_px <= 8 * 96
    assert info.width_px >= 96 // 8
    assert any(aspect in warning for warning in info.warnings)
    spec = PictureSpec(
        resize_mode="shortest_edge", resize_height_px=32, resize_width_px=32, crop_height_px=32, crop_width_px=32
    )
    with open_video(timing_of(info)) as video:
        (clip,) = video.decode(plan_clips(info, fps=Fraction(1), clip_frames=1), spec)
    assert clip.frames.shape == (1, 32, 32, 3)


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A broadcast that changes from 96 x 64 to 128 x 96 pixels after 20 pictures."""
    folder = tmp_path_factory.mktemp("growing")
    parts = [
        make_video(folder / f"{i}.h264", frames=[picture(n + 20 * i, size=size) for n in range(20)], options=PLAIN)
        for i, size in enumerate([(64, 96), (96, 128)])
    ]
    ts = folder / "joined.ts"
    with av.open(str(ts), "w") as target:
        stream = target.add_stream("libx264", rate=25)
        number = 0
        for part in parts:
            with av.open(str(part)) as container:
                for packet in container.demux(video=0):
                    if packet.size:
                        packet.pts = packet.dts = number
                        packet.time_base, packet.stream = Fraction(1, 25), stream
                        target.mux(packet)
                        number += 1
    return ts


def test_a_change_of_size_within_a_file(growing: Path) -> None:
    """Each picture is resized as it is."""
    info = scan_video(source_of(growing))
    clips = decode_units(info, Fraction(25), clip_frames=8, unit_clips=2)
    assert [number_of(frame) for clip in clips for frame in clip.frames] == list(range(info.frames_found))


def test_pictures_too_large_for_memory_are_not_decoded(growing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start they are refused by their size; where a file grows so, what comes from there on is lost."""
    monkeypatch.setattr("pipeline.video.backend.MOST_PICTURE_PX", 96 * 128 - 1)
    info = scan_video(source_of(growing))
    *clips, last = plan_clips(info, fps=Fraction(25), clip_frames=20)
    with open_video(timing_of(info)) as video:
        assert [clip.damaged_frames for clip in video.decode(clips, SMALL)] == [0]
        with pytest.raises(DecodeError, match="no frame"):
            list(video.decode([last], SMALL))
    monkeypatch.setattr("pipeline.video.tracks.MOST_PICTURE_PX", 64 * 96 - 1)
    with pytest.raises(DecodeError, match="96x64 pixels") as error:
        scan_video(source_of(growing))
    assert error.value.failure == "unsupported"


class CountingBackend:
    """How many packets are decoded, all backends together."""

    sent = 0


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> type[CountingBackend]:
    CountingBackend.sent = 0
    send = LibavBackend.send

    def counting(self: LibavBackend, packet: object) -> object:
        CountingBackend.sent += 1
        return send(self, packet)  # type: ignore[arg-type]

    monkeypatch.setattr(LibavBackend, "send", counting)
    return CountingBackend


@pytest.mark.parametrize("name", ["single_key.mp4", "no_ticks.avi", "restarts.ts", "raw.h264"])
@pytest.mark.parametrize("damaged", [False, True], ids=["whole", "damaged"])
def test_a_file_of_one_key_is_decoded_once(
    tmp_path: Path, name: str, damaged: bool, counted: type[CountingBackend]
) -> None:
    path = make_video(tmp_path / name, frames=400, gop=1000, bframes=2, options={"preset": "ultrafast"})
    data = bytearray(path.read_bytes())
    if name == "restarts.ts":
        data = data + data
    if damaged:
        middle = len(data) // 3
        data[middle : middle + 400] = bytes(400)
    path.write_bytes(data)
    info = scan_video(source_of(path))
    counted.sent = 0
    units = in_units(plan_clips(info, fps=Fraction(25), clip_frames=10), 2)
    with open_video(timing_of(info)) as video:
        frames = sum(len(clip.frames) for unit in units for clip in video.decode(unit, SMALL))
    assert frames >= 380
    # Twice where damage is met: by definition a damaged group is decoded whole, from its key frame.
    assert counted.sent <= (2 if damaged else 1) * info.frames_found + 60


def test_units_give_the_same_whether_the_cursor_stays_or_is_new(tmp_path: Path) -> None:
    path = make_video(tmp_path / "video.mp4", frames=200, gop=70, bframes=3, options={"preset": "veryfast"})
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = b"\x55" * 40
    data[len(data) // 3 : len(data) // 3 + 90] = bytes(90)
    path.write_bytes(data)
    info = scan_video(source_of(path))
    clips = plan_clips(info, fps=Fraction(10), clip_frames=3)
    with open_video(timing_of(info)) as video:
        staying = [clip for unit in in_units(clips, 2) for clip in video.decode(unit, SMALL)]
    fresh = []
    for unit in reversed(in_units(clips, 3)):
        with open_video(timing_of(info)) as video:
            fresh = [*video.decode(unit, SMALL), *fresh]
    assert any(clip.damaged_frames for clip in staying)
    for one, other in zip(staying, fresh, strict=True):
        np.testing.assert_array_equal(one.frames, other.frames)
        np.testing.assert_array_equal(one.is_damaged, other.is_damaged)


def test_the_end_of_what_can_be_read_is_not_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.video.packets import Demuxed

    path = make_video(tmp_path / "video.mkv", frames=50, options=FAST)
    monkeypatch.setattr("pipeline.video.packets.MAX_ERRORS_IN_A_ROW", 0)
    with av.open(str(path)) as container:
        demuxed = Demuxed(container, list(container.streams.video))
        assert not list(demuxed.packets)
        assert demuxed.given_up


@pytest.mark.parametrize("content", [b"#EXTM3U\n#EXT-X-VERSION:3\n", b"ffconcat version 1.0\nfile x.mp4\n"])
def test_playlists_are_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "list.mp4"
    path.write_bytes(content)
    with pytest.raises(DecodeError, match="names other files") as error:
        scan_video(source_of(path))
    assert error.value.failure == "unsupported"


def test_a_wrap_of_the_clock_goes_on(tmp_path: Path) -> None:
    """MPEG-TS counts to 2 ** 33 and begins again: 26.5 hours after it began."""
    wrap = (1 << 33) // 3600
    path = make_video(
        tmp_path / "wrap.ts", frames=100, gop=10, start_pts=wrap - 50, time_base=Fraction(1, 25), options=FAST
    )
    info = scan_video(source_of(path))
    assert (info.timestamps, info.frames_found) == ("stream", 100)
    clips = decode_units(info, Fraction(5), clip_frames=4, unit_clips=2)
    assert [number_of(frame) for clip in clips for frame in clip.frames] == list(range(0, 100, 5))
    assert not any(clip.damaged_frames for clip in clips)


def test_a_file_cut_between_packets_lacks_nothing(tmp_path: Path) -> None:
    """Its last pictures in display order are there, some that come before them are not."""
    whole = make_video(tmp_path / "whole.mp4", frames=120, gop=60, bframes=3, options=FAST)
    path = tmp_path / "cut.mp4"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size and number < 98:
                packet.stream = stream
                target.mux(packet)
    info = compare(path, Fraction(25), clip_frames=6, unit_clips=2)
    assert np.diff(info.frame_pts).max() > 1.5 * np.median(np.diff(info.frame_pts))
    assert not info.missing_pts


def test_a_lost_packet_of_a_constant_rate_is_missed(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "whole.mp4", frames=120, gop=60, bframes=0, options=PLAIN)
    path = tmp_path / "lacking.mp4"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size and number != 30:
                packet.stream = stream
                target.mux(packet)
    info = scan_video(source_of(path))
    assert (info.frames_found, len(info.missing_pts)) == (120, 1)
    clips = decode_units(info, Fraction(25), clip_frames=20, unit_clips=1)
    # From the lost picture on to the next key frame, and nothing after it.
    assert [clip.damaged_frames for clip in clips] == [0, 10, 20, 0, 0, 0]


def with_edits(path: Path, edits: list[tuple[int, int]]) -> None:
    """Give the one track of an mp4 file other edits: lengths in the movie's clock, starts in the track's."""
    data = bytearray(path.read_bytes())
    entries = b"".join(struct.pack(">IiI", length, start, 1 << 16) for length, start in edits)
    elst = struct.pack(">I4sII", 16 + len(entries), b"elst", 0, len(edits)) + entries
    edts = struct.pack(">I4s", 8 + len(elst), b"edts") + elst
    moov, trak = data.index(b"moov") - 4, data.index(b"trak") - 4
    assert moov > data.index(b"mdat"), "chunk offsets would move"
    old = data.find(b"edts") - 4
    old_bytes = int.from_bytes(data[old : old + 4], "big") if old > 0 else 0
    place = old if old > 0 else trak + 8 + int.from_bytes(data[trak + 8 : trak + 12], "big")
    for box in (moov, trak):
        size = int.from_bytes(data[box : box + 4], "big") + len(edts) - old_bytes
        data[box : box + 4] = size.to_bytes(4, "big")
    data[place : place + old_bytes] = edts
    path.write_bytes(data)


def test_several_edits(tmp_path: Path) -> None:
    """Frames 0 to 19, then 40 to 59, begun at a key frame and in mid-group."""
    for gop in (20, 50):
        path = make_video(tmp_path / f"{gop}.mp4", frames=80, gop=gop, options=PLAIN)
        info = scan_video(source_of(path))
        tick = int(1 / 25 / info.time_base)
        with_edits(path, [(20 * 1000 // 25, 0), (20 * 1000 // 25, 40 * tick)])
        info = compare(path, Fraction(25), clip_frames=7, unit_clips=2)
        clips = decode_units(info, Fraction(25), clip_frames=7, unit_clips=1)
        assert [number_of(frame) for clip in clips for frame in clip.frames] == [*range(20), *range(40, 60)]


def test_pictures_that_theora_shows_again_are_neither_frames_nor_damage(tmp_path: Path) -> None:
    """An empty packet shows the picture before it again; libavcodec takes it for the end of the stream."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("the ffmpeg command is not installed")
    path = tmp_path / "video.ogv"
    numbers = [*range(30), *[30] * 5, *range(31, 75)]
    moving = make_video(tmp_path / "video.mp4", frames=[picture(number) for number in numbers], options={"qp": "1"})
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", str(moving), "-c:v", "libtheora", "-q:v", "8", str(path)]
    subprocess.run(command, check=True)
    packets, pictures = [], {}
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            if packet.pts is not None:
                packets.append((packet.pts, packet.size))
            pictures |= {frame.pts: frame for frame in (packet.decode() if packet.size else ())}
    again = [pts for pts, size in packets if not size]
    assert len(again) >= 2
    info = scan_video(source_of(path))
    assert (info.timestamps, info.warnings, info.missing_pts) == ("stream", (), ())
    assert info.frame_pts.tolist() == [pts for pts, size in packets if size]
    specs = plan_clips(info, fps=Fraction(25), clip_frames=20)
    with open_video(timing_of(info)) as video:
        clips = list(video.decode(specs, SMALL))
    assert sum(clip.damaged_frames for clip in clips) == 0
    maker = PictureMaker(info.picture, SMALL, VideoReformatter())
    for spec, clip in zip(specs, clips, strict=True):
        for tick, frame in zip(spec.frame_pts, clip.frames, strict=True):
            np.testing.assert_array_equal(frame, maker.make(pictures[tick]))
    assert max(max(spec.frame_instants) for spec in specs) >= 3
