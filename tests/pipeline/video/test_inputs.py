"""Videos that are no video files: numbered pictures, animations, MXF; and what is refused by name."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from pipeline.errors import DecodeError, InputError
from pipeline.inputs.sources import find_inputs, identify
from pipeline.video import animated_webp, scan_video
from tests.pipeline.video.reference import compare, decode_units, source_of
from tests.synthetic import make_video, number_of, picture


def write_numbered(folder: Path, first: int, count: int) -> str:
    for number in range(count):
        Image.fromarray(picture(number)).save(folder / f"shot_{first + number:04d}.png")
    return f"{folder}/shot_%04d.png?rate=12"


def test_numbered_pictures_are_a_video(tmp_path: Path) -> None:
    uri = write_numbered(tmp_path, 7, 30)
    info = scan_video(source_of(uri))
    assert (info.frames_found, info.timestamps, info.time_base) == (30, "stream", Fraction(1, 12))
    clips = decode_units(info, Fraction(4), clip_frames=3, unit_clips=2)
    assert [number_of(frame) for clip in clips for frame in clip.frames] == list(range(0, 30, 3))
    assert not any(clip.damaged_frames for clip in clips)


def test_numbered_pictures_are_known_by_content_and_rate(tmp_path: Path) -> None:
    uri = write_numbered(tmp_path, 1, 5)
    (found,) = find_inputs([uri])
    assert found.uri == uri
    video = identify(uri)
    slower = identify(uri.replace("rate=12", "rate=6"))
    moved = tmp_path / "moved"
    moved.mkdir()
    same = identify(write_numbered(moved, 1, 5))
    assert same.video_id == video.video_id != slower.video_id
    Image.fromarray(picture(99)).save(tmp_path / "shot_0003.png")
    changed = identify(uri)
    assert changed.video_id != video.video_id


@pytest.mark.parametrize(("text", "word"), [("shot_%04d.png?rate=x", "no rate"), ("none_%d.png?rate=5", "no file")])
def test_numbered_pictures_that_are_none(tmp_path: Path, text: str, word: str) -> None:
    write_numbered(tmp_path, 0, 2)
    with pytest.raises(InputError, match=word):
        list(find_inputs([f"{tmp_path}/{text}"]))


def test_an_animated_gif(tmp_path: Path) -> None:
    path = tmp_path / "video.gif"
    shots = [Image.fromarray(picture(number)) for number in range(20)]
    shots[0].save(path, save_all=True, append_images=shots[1:], duration=80, loop=0)
    for fps in (Fraction(1), Fraction(25, 2)):
        info = compare(path, fps, clip_frames=4, unit_clips=2)
    assert info.frames_found == 20
    clips = decode_units(info, Fraction(25, 2), clip_frames=4, unit_clips=1)
    assert [number_of(frame) for clip in clips for frame in clip.frames] == list(range(20))


def test_mxf(tmp_path: Path) -> None:
    path = make_video(tmp_path / "video.mxf", frames=50, codec="mpeg2video", gop=12, bframes=2, size=(96, 128))
    for fps in (Fraction(1), Fraction(5), Fraction(25)):
        assert compare(path, fps, clip_frames=6, unit_clips=2).frames_found == 50


def animation(path: Path, **options: Any) -> Path:
    shots = [Image.fromarray(picture(number)) for number in range(20)]
    shots[0].save(path, save_all=True, append_images=shots[1:], loop=0, **options)
    return path


def test_an_animated_webp(tmp_path: Path) -> None:
    """Pictures at their own times: one that asks for 0 ms is shown for 100, as in a GIF."""
    durations = [80, 40, 0, 1000, *[60] * 16]
    info = scan_video(source_of(animation(tmp_path / "video.webp", lossless=True, duration=durations)))
    times_ms = np.cumsum([0, 80, 40, 100, 1000, *[60] * 15])
    np.testing.assert_array_equal((info.frame_pts - info.start_pts) * info.time_base * 1000, times_ms)
    assert (info.codec, len(info.key_pts), info.warnings) == ("png", 20, ())
    assert (info.pixel_format, info.frame_rate) == ("rgba", Fraction(20_000, sum(durations) + 100))
    clips = decode_units(info, Fraction(50), clip_frames=149, unit_clips=1)
    assert [number_of(frame) for clip in clips for frame in clip.frames] == list(range(20))


def test_an_animated_webp_with_alpha(tmp_path: Path) -> None:
    shots = [
        Image.fromarray(np.dstack([picture(n), np.full((*picture(n).shape[:2], 1), 99, np.uint8)])) for n in (1, 2)
    ]
    shots[0].save(tmp_path / "video.webp", save_all=True, append_images=shots[1:], lossless=True, duration=500)
    info = scan_video(source_of(tmp_path / "video.webp"))
    assert (info.frames_found, info.pixel_format) == (2, "rgba")


@pytest.mark.parametrize(
    ("damage", "word"),
    [("size", "too large"), ("start", "no WebP"), ("end", "no WebP"), ("last", "20 of 20 is damaged")],
)
def test_a_damaged_animated_webp(tmp_path: Path, damage: str, word: str) -> None:
    path = animation(tmp_path / "video.webp", duration=80, lossless=True)
    data = bytearray(path.read_bytes())
    if damage == "size":
        data[24:30] = b"\xff\x3f\x00\xff\x3f\x00"
    elif damage == "start":
        data[40:] = bytes(len(data) - 40)
    elif damage == "end":
        del data[len(data) // 2 :]
    else:
        data[-200:-100] = bytes(100)
    path.write_bytes(data)
    with pytest.raises(DecodeError, match=word) as error:
        scan_video(source_of(path))
    assert error.value.failure == ("unsupported" if damage == "size" else "corrupt")
    assert "\n" not in str(error.value)


def test_an_animation_that_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(animated_webp, "MOST_BYTES", 20_000)
    with pytest.raises(DecodeError, match="too long to be held") as error:
        scan_video(source_of(animation(tmp_path / "video.webp", duration=80)))
    assert error.value.failure == "unsupported"


def test_an_animated_png(tmp_path: Path) -> None:
    assert (
        compare(
            animation(tmp_path / "video.png", duration=80), Fraction(25, 2), clip_frames=4, unit_clips=2
        ).frames_found
        == 20
    )


def test_formats_that_are_not_read_are_named(tmp_path: Path) -> None:
    Image.fromarray(picture(0)).save(tmp_path / "video.png")
    with pytest.raises(DecodeError, match="png_pipe is not read here") as error:
        scan_video(source_of(tmp_path / "video.png"))
    assert error.value.failure == "unsupported"


def test_formats_that_read_other_files_are_not_opened(tmp_path: Path) -> None:
    """A concat script without its first line, which libavformat knows by name alone, and a manifest."""
    make_video(tmp_path / "video.mp4", frames=3)
    for name, text in {"list.ffconcat": "file video.mp4\n", "list.mpd": '<?xml version="1.0"?><MPD/>'}.items():
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(DecodeError) as error:
            scan_video(source_of(path))
        assert "\n" not in str(error.value)
    assert "concat" in av.formats_available
