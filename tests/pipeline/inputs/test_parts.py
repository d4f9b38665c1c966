"""Parts of videos, by start and end of a list's row: the video's own grid, cut to the part; videos of their own."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import TokenCache
from pipeline.errors import InputError
from pipeline.failed_range import FailedRange
from pipeline.inputs.named import Named
from pipeline.inputs.sources import find_named
from pipeline.plan.clips import clip_instants, num_clips
from pipeline.plan.spans import Span, address_of_part, id_of_part, span_between, split_address, split_id
from pipeline.settings import Execution
from pipeline.verify import verify
from tests.pipeline.runs import RecordingListener, rows_of, run, tiny_recipe
from tests.synthetic import make_video


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 s: at 2 a second 21 sampling times, in clips of three."""
    return make_video(tmp_path_factory.mktemp("film") / "film.mp4", frames=251, fps=25, gop=50, bframes=2)


@given(start=st.integers(0, 10**7), length=st.none() | st.integers(1, 10**7))
def test_addresses_and_ids_carry_a_part(start: int, length: int | None) -> None:
    span = Span(start, None if length is None else start + length)
    assert split_address(address_of_part("s3://a/b.mp4", span)) == ("s3://a/b.mp4", span)
    assert split_id(id_of_part("ab" * 16, span)) == ("ab" * 16, span)


@pytest.mark.parametrize("uri", ["a.mp4", "a#t=.mp4", "a.mp4#t=x", "a.mp4#t=", "https://h/a.mp4?x=1#top"])
def test_other_addresses_are_whole_videos(uri: str) -> None:
    assert split_address(uri) == (uri, None)


@pytest.mark.parametrize(
    ("start", "end", "span"),
    [
        (None, None, None),
        ("", "", None),
        (None, 2, Span(0, 2000)),
        ("1.5", None, Span(1500, None)),
        ("0:01:30.25", "1:00:00", Span(90_250, 3_600_000)),
        ("02:03", 200.0004, Span(123_000, 200_000)),
    ],
)
def test_times_in_lists(start: object, end: object, span: Span | None) -> None:
    assert span_between(start, end) == span


@pytest.mark.parametrize(
    ("start", "end"), [(3, 3), (3, 2), (-1, 2), ("soon", 2), (float("nan"), 2), (0, float("inf")), (True, 2), ([1], 2)]
)
def test_times_that_are_none(start: object, end: object) -> None:
    with pytest.raises(InputError):
        span_between(start, end)


@given(first=st.integers(0, 40), count=st.integers(1, 40), clip_frames=st.integers(1, 11))
def test_clips_of_a_part_lie_on_the_grid_of_the_video(first: int, count: int, clip_frames: int) -> None:
    meant = range(first, first + count)
    clips = [clip_instants(i, meant, clip_frames) for i in range(num_clips(meant, clip_frames))]
    assert [instant for clip in clips for instant in clip] == list(meant)
    assert all(clip and len({instant // clip_frames for instant in clip}) == 1 for clip in clips)


def test_rows_of_one_video_are_extracted_each(film: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    rows = [
        {"path": str(film), "start": 1, "end": 4, "caption": "one"},
        {"path": str(film), "start": "0:00:02.9", "end": None, "caption": "two"},
        {"path": str(film), "caption": "whole"},
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    out = tmp_path / "out"
    recipe = tiny_recipe(tiny_encoder, strategy="none", keep=None)
    summary = run([tmp_path / "list.jsonl"], out, recipe)
    assert (summary.exit_code, summary.videos) == (0, 3), summary.failures
    table = {row["uri"].rpartition("/")[2]: row for row in pq.read_table(out / "videos.parquet").to_pylist()}
    # Instants 2 to 7 lie in [1, 4): the second half of no clip, clips 0 (its last), 1 and 2 (its first two).
    spans = {name: (row["start_ns"], row["end_ns"], row["clips"]) for name, row in table.items()}
    assert spans == {
        "film.mp4#t=1,4": (10**9, 4 * 10**9, 3),
        "film.mp4#t=2.9": (3 * 10**9, 10_500_000_000, 5),
        "film.mp4": (0, 10_500_000_000, 7),
    }
    assert [json.loads(row["labels"]) for row in table.values()] == [[{"caption": c}] for c in ("one", "two", "whole")]
    assert len(list((out / "index").rglob("*.index"))) == 1
    cache = TokenCache(out)
    whole = [clip for clip in cache if "#" not in clip.uri]
    times = np.concatenate([clip.frame_time_ns for clip in whole])
    tokens = np.concatenate([clip.tokens.numpy().reshape(len(clip.frame_time_ns), -1) for clip in whole])
    part = [clip for clip in cache if clip.uri.endswith("#t=1,4")]
    assert [(clip.start_ns, clip.end_ns) for clip in part] == [
        (1_000_000_000, 1_500_000_000),
        (1_500_000_000, 3_000_000_000),
        (3_000_000_000, 4_000_000_000),
    ]
    for clip in part:
        same = tokens[np.isin(times, clip.frame_time_ns)]
        assert (clip.tokens.numpy().reshape(same.shape) == same).all()
    assert verify(out).problems == ()
    assert run([tmp_path / "list.jsonl"], out, recipe).tally.clips == 0


def test_a_part_that_is_lost_is_made_again(film: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    from pipeline.deep import compare_again
    from pipeline.repair import repair

    out = tmp_path / "out"
    assert run([f"{film}#t=1,4"], out, tiny_recipe(tiny_encoder)).clips == 3
    want = rows_of(out)
    assert list(compare_again(out, 3)) == []
    for path in [*(out / "shards").iterdir(), *(out / "index").rglob("*.index")]:
        path.unlink()
    assert "film.mp4#t=1,4: nothing from 1.000 to 4.000 s" in "\n".join(verify(out).problems)
    done = repair(out, Execution(engine="inline", gpus=0, workers=1), RecordingListener())
    assert done.after.is_sound
    assert rows_of(out) == want


def test_parts_that_hold_nothing_are_recorded(film: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    rows = [(str(film), *span) for span in (("9", "99"), ("11", "12"), ("0.1", "0.4"), ("5", "4"), ("x", "4"))]
    text = "path,start,end\n" + "\n".join(",".join(row) for row in rows)
    (tmp_path / "list.csv").write_text(text)
    out = tmp_path / "out"
    summary = run([tmp_path / "list.csv"], out, tiny_recipe(tiny_encoder))
    assert (summary.exit_code, summary.clips) == (3, 1)
    said = sorted(f"{failed.failure} {failed.message}" for failed in summary.failures)
    assert said[0].endswith("list.csv: row 4: end 4 is not after start 5")
    assert "row 5: start 'x' is no time" in said[1]
    assert all("unsupported no sampling time lies between start and end" in text for text in said[2:])
    assert len(said) == 4
    (row,) = [row for row in pq.read_table(out / "videos.parquet").to_pylist() if row["clips"]]
    assert row["warnings"] == ["the part that is asked for ends at 99 s, the video at 10.5 s"]
    assert verify(out).is_sound


def test_videos_in_the_bytes_of_a_parquet_file(film: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    other = make_video(tmp_path / "other.mp4", frames=51, fps=25, gop=50)
    data = [film.read_bytes(), None, other.read_bytes(), b"no video", None]
    cells = [{"bytes": cell, "path": "other.mp4" if number == 4 else "a.mp4"} for number, cell in enumerate(data)]
    cells[1] = {"bytes": None, "path": None}
    table = pa.table(
        {"video": cells, "caption": list("abcde"), "thumb": [b"x"] * 5, "end": [None, None, 1.5, None, None]}
    )
    pq.write_table(table, tmp_path / "films.parquet", row_group_size=3)
    out = tmp_path / "out"
    summary = run([tmp_path / "films.parquet"], out, tiny_recipe(tiny_encoder))
    assert sorted((f.uri.partition("::")[0].rpartition("/")[2], f.failure) for f in summary.failures) == [
        ("3", "corrupt"),
        ("films.parquet#row=2", "io"),
    ]
    found = {row["uri"].replace(str(tmp_path), ""): row for row in pq.read_table(out / "videos.parquet").to_pylist()}
    labels = {uri: json.loads(row["labels"])[0] for uri, row in found.items() if row["clips"]}
    assert labels == {
        "parquet://video.bytes/0::/films.parquet": {"caption": "a"},
        "parquet://video.bytes/2::/films.parquet#t=0,1.5": {"caption": "c"},
        "/other.mp4": {"caption": "e"},
    }
    run([film], tmp_path / "plain", tiny_recipe(tiny_encoder))
    assert rows_of(tmp_path / "plain").items() <= rows_of(out).items()
    assert verify(out).is_sound
    assert run([tmp_path / "films.parquet"], out, tiny_recipe(tiny_encoder)).tally.clips == 0


@pytest.mark.parametrize("name", ["bytes", "clip", "mp4"])
def test_a_column_of_bytes_by_any_name(tmp_path: Path, name: str) -> None:
    pq.write_table(pa.table({name: [b"one", b"two"], "n": [1, 2]}), tmp_path / "x.parquet")
    found = [item for item in find_named([str(tmp_path / "x.parquet")]) if isinstance(item, Named)]
    assert [item.input.uri for item in found] == [f"parquet://{name}/{i}::{tmp_path}/x.parquet" for i in (0, 1)]
    assert [item.labels for item in found] == ['{"n": 1}', '{"n": 2}']
    assert all(item.input.stamp for item in found)


def test_a_name_that_ends_as_a_part_does_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"x")
    (tmp_path / "y.mp4#t=3").write_bytes(b"y")
    found = list(find_named([str(tmp_path / "*")]))
    assert [isinstance(item, FailedRange) for item in found] == [False, True]


def test_instants_of_a_part() -> None:
    assert list(Span(1000, 4000).instants(Fraction(2), 99)) == [2, 3, 4, 5, 6, 7]
    assert list(Span(1001, 3999).instants(Fraction(2), 99)) == [3, 4, 5, 6, 7]
    assert list(Span(0, None).instants(Fraction(1, 3), 4)) == [0, 1, 2, 3]
    assert not Span(5000, 6000).instants(Fraction(1), 3)
