from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.failed_range import FailedRange
from pipeline.inputs.named import Input, Named
from pipeline.inputs.sources import ID_SPAN_BYTES, expand, find_inputs, find_named, identify, stamped


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


@pytest.mark.parametrize(
    "address",
    [
        "\ud800.mp4",
        os.fsdecode(b"nothing-\xff.mp4"),
        os.fsdecode(b"\xff*.mp4"),
        "a\0.mp4",
        "a" * 300 + ".mp4",
        "~nobody-of-this-name/a.mp4",
        "**x/*.mp4",
        "[.mp4",
        "nowhere://bucket/",
        "://",
    ],
)
def test_an_address_that_nothing_can_have_is_a_failure(folder: Path, address: str) -> None:
    (folder / "list.jsonl").write_text("\n".join(json.dumps({"uri": uri}) for uri in (address, "b.mp4")))
    for inputs in ([str(folder / "list.jsonl")], [f"{folder}/{address}", str(folder / "b.mp4")]):
        lost, found = find_inputs(inputs)
        assert isinstance(found, Input)
        assert isinstance(lost, FailedRange)
        # They are stored as text.
        assert f"{lost.uri} {lost.message} {lost.video_id}".encode()


@pytest.mark.parametrize("cell", [["b.mp4"], 7, True, [["b.mp4"]], {"bytes": None}, {}])
def test_a_cell_that_is_no_address_is_a_failure(folder: Path, cell: object) -> None:
    (folder / "list.jsonl").write_text("\n".join(json.dumps({"uri": uri}) for uri in (cell, {"path": "b.mp4"})))
    lost, found = find_inputs([str(folder / "list.jsonl")])
    assert isinstance(found, Input)
    assert isinstance(lost, FailedRange)
    assert "row 1: " in lost.message


def test_links_to_nothing_and_folders_that_cannot_be_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "season1").symlink_to(os.fsdecode(b"/nowhere/\xff"))
    real = Path.iterdir

    def refuse(self: Path) -> object:
        if self.name == "er":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self)

    monkeypatch.setattr(Path, "iterdir", refuse)
    for name in ("", "/*", "/**"):
        lost = [item for item in find_inputs([f"{folder}{name}"]) if isinstance(item, FailedRange)]
        said = sorted(item.message.removeprefix(str(folder)) for item in lost)
        refused = "/deep/er: the folder cannot be listed: Permission denied"
        assert said == [*([refused] if name != "/*" else []), "/season1: a link to /nowhere/\\xff, which is not there"]


def test_a_glob_follows_links(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "d.avi").write_bytes(b"d")
    (elsewhere / "loop").symlink_to(folder)
    (folder / "linked").symlink_to(elsewhere)
    assert names(list(expand(f"{folder}/**/*.avi"))) == ["c.avi", "d.avi"]
    assert names(list(expand(f"{folder}/*/[!x].avi"))) == ["d.avi"]
    assert names(list(expand(f"{folder}/deep/../l*ed/d.avi"))) == ["d.avi"]


def test_archives_are_named_by_a_glob(tmp_path: Path) -> None:
    import tarfile

    (tmp_path / "x.mp4").write_bytes(b"x")
    with tarfile.open(tmp_path / "films.tar", "w") as archive:
        archive.add(tmp_path / "x.mp4", "in/y.mp4")
    assert names(list(expand(f"{tmp_path}/*"))) == ["films.tar", "x.mp4"]
    assert names(list(expand(str(tmp_path)))) == ["x.mp4"]
    (tmp_path / "x.mp4").unlink()
    with pytest.raises(InputError, match=r"but 1 archive: name archives by a glob"):
        list(expand(str(tmp_path)))


def test_objects_that_a_list_names_are_known_by_their_stamps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each would be read again when a run goes on."""
    import fsspec

    from pipeline.inputs import objects

    monkeypatch.setattr(objects, "LIST_FROM", 3)
    memory = fsspec.filesystem("memory")
    keys = ["films/a.mp4", "films/b.mp4", "films/c.mp4#t=1,2", "alone/d.mp4", "alone/gone.mp4"]
    for key in keys[:4]:
        memory.pipe_file(f"/{tmp_path.name}/{key.partition('#')[0]}", key.encode())
    uris = [f"memory://{tmp_path.name}/{key}" for key in keys]
    (tmp_path / "list.txt").write_text("\n".join(uris))
    found = [item for item in find_inputs([str(tmp_path / "list.txt")]) if isinstance(item, Input)]
    assert [item.uri for item in found] == uris
    assert [bool(item.stamp) for item in found] == [True, True, True, True, False]
    assert found[0].size_bytes == len(keys[0])
    memory.pipe_file(f"/{tmp_path.name}/films/a.mp4", b"other")
    again = next(iter(find_inputs([uris[0]])))
    assert isinstance(again, Input)
    assert again.stamp != found[0].stamp


def test_captions_of_several_lines_stay_whole(folder: Path) -> None:
    caption = "one\n\n# two\u2028three\x85four"
    (folder / "list.csv").write_text(f'# a list\n\npath,caption\r\nb.mp4,"{caption}"\r\n')
    (folder / "list.jsonl").write_text(json.dumps({"path": "b.mp4", "caption": caption}, ensure_ascii=False) + "\r\n")
    for name in ("list.csv", "list.jsonl"):
        (item,) = find_named([str(folder / name)])
        assert isinstance(item, Named)
        assert json.loads(item.labels) == {"caption": caption}
