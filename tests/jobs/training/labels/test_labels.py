from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from jobs.training.labels import LabelSet, load_labels, video_names
from pipeline.errors import InputError
from vtm.network import Task

LVU_COUNTS = {
    "director": (680, 163, 107, 10),
    "genre": (3063, 597, 647, 4),
    "relationship": (149, 53, 42, 4),
    "scene": (557, 120, 86, 6),
    "way_speaking": (939, 205, 201, 5),
    "writer": (769, 174, 168, 10),
    "year": (770, 165, 143, 9),
    "like_ratio": (658, 142, 140, 0),
    "view_count": (577, 124, 126, 0),
}


@pytest.fixture
def annotations() -> Path:
    folder = Path(__file__).parents[4] / "../shared/data/annotations"
    if not folder.is_dir():
        pytest.skip("the label files of LVU and Breakfast are not at ../shared/data/annotations")
    return folder


@pytest.mark.parametrize("task", sorted(LVU_COUNTS))
def test_lvu_loads_in_full(annotations: Path, task: str) -> None:
    labels = load_labels(annotations / "lvu_1.0" / task)
    assert (*labels.counts().values(), len(labels.classes)) == LVU_COUNTS[task]


@pytest.mark.parametrize("task", ["like_ratio", "view_count"])
def test_lvu_values_are_centred_on_the_published_means(annotations: Path, task: str) -> None:
    values = [label.target for label in load_labels(annotations / "lvu_1.0" / task).labels]
    assert abs(sum(values) / len(values)) < 0.1


def test_breakfast_loads_in_full(annotations: Path) -> None:
    labels = load_labels(annotations / "Breakfast")
    assert labels.counts() == {"train": 1357, "val": 0, "test": 355}
    assert labels.classes[:3] == ("cereals", "coffee", "tea")
    test_subjects = {label.video[:3] for label in labels.labels if label.split == "test"}
    assert test_subjects == {f"P{number}" for number in range(47, 55)}


def test_lvu_values_are_the_documented_formulas(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.csv").write_text("like_count dislike_count youtube_id imdb_id\n30 10 a-b tt1\n")
    assert [label.target for label in load_labels(tmp_path).labels] == [7.5 - 9.138] * 3
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.csv").write_text("view_count youtube_id imdb_id\n1000 -x tt1\n")
    assert load_labels(tmp_path).labels[0].target == math.log(1000) - 11.764


def test_coin_splits_by_subset(tmp_path: Path) -> None:
    record = {"recipe_type": 3, "duration": 9.5, "annotation": []}
    database = {
        "b": {**record, "class": "MakeTea", "subset": "training"},
        "a": {**record, "class": "CutMango", "subset": "testing"},
        "c": {**record, "class": "MakeTea", "subset": "testing"},
    }
    path = tmp_path / "COIN.json"
    path.write_text(json.dumps({"database": database}))
    labels = load_labels(path)
    assert labels.classes == ("CutMango", "MakeTea")
    assert [(label.video, label.target, label.split) for label in labels.labels] == [
        ("b", 1, "train"),
        ("a", 0, "test"),
        ("c", 1, "test"),
    ]


def write_csv(path: Path, text: str, task: Task | None = None) -> LabelSet:
    path.write_text(text)
    return load_labels(path, task)


def test_plain_table_of_names_or_numbers(tmp_path: Path) -> None:
    named = write_csv(tmp_path / "a.csv", "video_id,label,split\nx,dog,train\ny,cat,test\n")
    assert (named.task, named.classes, named.counts()) == (
        "classification",
        ("cat", "dog"),
        {"train": 1, "val": 0, "test": 1},
    )
    table = "video_id,label,split\nx,1.5,train\ny,2,val\n"
    valued = write_csv(tmp_path / "b.csv", table, "regression")
    assert (valued.task, valued.outputs, [label.target for label in valued.labels]) == ("regression", 1, [1.5, 2.0])
    as_names = write_csv(tmp_path / "b.csv", table, "classification")
    assert (as_names.task, as_names.classes) == ("classification", ("1.5", "2"))
    with pytest.raises(InputError, match="--task classification or --task regression"):
        load_labels(tmp_path / "b.csv")
    with pytest.raises(InputError, match="'dog' is not a finite number"):
        load_labels(tmp_path / "a.csv", "regression")


def test_split_without_a_column_depends_on_the_name_alone(tmp_path: Path) -> None:
    header, rows = "video_id,label\n", [f"video{i},{'ab'[i % 2]}\n" for i in range(301)]
    forward = write_csv(tmp_path / "a.csv", header + "".join(rows))
    backward = write_csv(tmp_path / "b.csv", header + "".join(reversed(rows)))
    assert set(forward.labels) == set(backward.labels)
    counts = forward.counts()
    assert counts["train"] > counts["test"] > counts["val"] > 0


def test_parquet_reads_as_csv_does(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"video_id": ["x", "y"], "label": ["dog", "cat"], "split": ["train", "val"]}
    pq.write_table(pa.table(columns), tmp_path / "labels.parquet")
    expected = write_csv(tmp_path / "labels.csv", "video_id,label,split\nx,dog,train\ny,cat,val\n")
    assert load_labels(tmp_path / "labels.parquet") == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "id,label\nx,1\n", "id, label: expected rows of video_id,label"),
        ("a.csv", "video_id,label,split\nx,1,dev\n", "split 'dev', expected one of train, val, test"),
        ("a.csv", "video_id,label\nx,\n", "row 1 has no video_id or no label"),
        ("a.json", "[]", "no COIN file"),
        ("a.txt", "x", "holds no labels"),
    ],
)
def test_unusable_files_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        write_csv(tmp_path / name, text)
    assert "\n" not in str(caught.value)


def test_missing_split_is_named(tmp_path: Path) -> None:
    (tmp_path / "val.csv").write_text("class_id class_name youtube_id imdb_id\n0 office a tt\n")
    with pytest.raises(InputError, match=r"train\.csv is missing"):
        load_labels(tmp_path)


def test_names_of_a_video_cover_breakfasts_paths() -> None:
    names = video_names("ab12", "s3://bucket/P47/cam01/P47_cereals.avi")
    assert names == ("ab12", "P47_cereals.avi", "P47_cereals", "P47-cam01-P47_cereals")


def test_a_folder_of_own_tables_is_one_line_that_names_the_plain_form(tmp_path: Path) -> None:
    for name in ("train.csv", "test.csv"):
        (tmp_path / name).write_text("video_id,label\na.mp4,cat\n")
    with pytest.raises(InputError, match=r"give labels of your own as one \.csv"):
        load_labels(tmp_path)
