"""Videos that are no video files: numbered pictures, animated GIF, MXF; and what is refused by name."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest
from PIL import Image

from pipeline.errors import DecodeError, InputError
from pipeline.inputs.sources import find_inputs, identify
from pipeline.video import scan_video
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


def test_animated_webp_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "video.webp"
    shots = [Image.fromarray(picture(number)) for number in range(3)]
    shots[0].save(path, save_all=True, append_images=shots[1:])
    with pytest.raises(DecodeError, match="WebP") as error:
        scan_video(source_of(path))
    assert error.value.failure == "unsupported"


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
