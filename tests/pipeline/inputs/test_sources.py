from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.inputs.sources import ID_SPAN_BYTES, expand, find_inputs, identify, stamped
from pipeline.values import FailedRange, Input


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for number, name in enumerate(("b.mp4", "a.MKV", "deep/er/c.avi", "note.md")):
        (tmp_path / name).write_bytes(bytes([number]) * (number + 5))
    return tmp_path


def names(found: list[str] | tuple[str, ...]) -> list[str]:
    return [Path(uri).name for uri in found]


def test_a_folder_gives_its_videos_sorted(folder: Path) -> None:
    assert names(list(expand(str(folder)))) == ["a.MKV", "b.mp4", "c.avi"]


def test_a_glob(folder: Path) -> None:
    assert names(list(expand(str(folder / "*.mp4")))) == ["b.mp4"]
    assert names(list(expand(str(folder / "**" / "*.avi")))) == ["c.avi"]


def test_a_file_needs_no_known_suffix(folder: Path) -> None:
    assert names(list(expand(str(folder / "note.md")))) == ["note.md"]


@pytest.mark.parametrize("kind", ["txt", "csv", "jsonl", "parquet"])
def test_lists(folder: Path, kind: str) -> None:
    path = folder / f"list.{kind}"
    entries = ["b.mp4", str(folder / "a.MKV")]
    if kind == "txt":
        path.write_text("# two of them\n\n" + "\n".join(entries) + "\n")
    elif kind == "csv":
        path.write_text("label,path\n" + "\n".join(f'x,"{entry}"' for entry in entries))
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps({"url": entry}) for entry in entries))
    else:
        pq.write_table(pa.table({"uri": entries}), path)
    assert names(list(expand(str(path)))) == ["b.mp4", "a.MKV"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("empty.txt", "# nothing\n", "names no video"),
        ("odd.csv", "label,when\nx,y\n", "no column named uri, path"),
        ("odd.jsonl", "{", "is no jsonl list"),
        ("number.jsonl", "7", "is no jsonl list"),
        ("short.csv", "label,path\nx\n", "is no csv list"),
        ("odd.parquet", "no parquet", "is no parquet list"),
    ],
)
def test_a_list_that_is_none(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        list(expand(str(tmp_path / name)))


def test_a_content_has_one_id_wherever_it_lies(folder: Path) -> None:
    copy = shutil.copy(folder / "b.mp4", folder / "deep" / "copy.mp4")
    assert identify(str(copy)).video_id == identify(str(folder / "b.mp4")).video_id


def test_the_id_sees_size_start_and_end(tmp_path: Path) -> None:
    whole = bytes(3 * ID_SPAN_BYTES)
    ids = set()
    for change in (None, 0, len(whole) - 1):
        data = bytearray(whole)
        if change is not None:
            data[change] = 1
        (tmp_path / "x").write_bytes(data)
        ids.add(identify(str(tmp_path / "x")).video_id)
    (tmp_path / "x").write_bytes(whole + b"\0")
    ids.add(identify(str(tmp_path / "x")).video_id)
    assert len(ids) == 4
    assert all(len(video_id) == 32 for video_id in ids)


def test_what_is_missing_beside_what_is_there(folder: Path) -> None:
    found, lost = find_inputs([str(folder / "b.mp4"), str(folder / "gone.mp4")])
    assert isinstance(found, Input)
    assert isinstance(lost, FailedRange)
    assert (lost.failure, Path(lost.uri).name) == ("io", "gone.mp4")


def test_a_changed_file_has_another_stamp(folder: Path) -> None:
    before = stamped(str(folder / "b.mp4"))
    os.utime(folder / "b.mp4", (7, 7))
    assert stamped(str(folder / "b.mp4")) != before
    assert (before.size_bytes, stamped("s3://bucket/b.mp4").stamp) == (5, "")


@pytest.mark.parametrize(
    ("text", "message"),
    [("gone.mp4", "no such file or folder"), ("*.mp4", "no file matches"), ("empty", "holds no video")],
)
def test_nothing_at_all(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        list(find_inputs([str(tmp_path / text)]))


def test_an_input_named_twice_counts_once(folder: Path) -> None:
    found = list(find_inputs([str(folder / "b.mp4"), str(folder / "*.mp4"), str(folder)]))
    assert len(found) == 3
