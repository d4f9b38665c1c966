from __future__ import annotations

import hashlib
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.failed_range import FailedRange
from pipeline.shards.commits import read_manifests
from pipeline.shards.manifest import is_whole, shard_sizes, write_shard
from pipeline.shards.parquet import ROW_GROUP_BYTES, write_parquet
from pipeline.shards.scan import read_shard
from pipeline.shards.webdataset import write_webdataset
from pipeline.store import open_store
from pipeline.store.publish import publish, sweep
from pipeline.values import TokenSet
from tests.pipeline.clips_made import RUN, made_clip

DTYPES = ["float16", "bfloat16", "float32", "int8"]


def assert_same(a: TokenSet, b: TokenSet) -> None:
    for f in fields(TokenSet):
        mine, theirs = getattr(a, f.name), getattr(b, f.name)
        if isinstance(mine, np.ndarray):
            assert mine.dtype == theirs.dtype, f.name
            np.testing.assert_array_equal(mine, theirs, err_msg=f.name)
        else:
            assert mine == theirs, f.name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("suffix", [".parquet", ".tar"])
def test_what_is_written_is_read(tmp_path: Path, dtype: str, suffix: str) -> None:
    clips = [made_clip(i, dtype=dtype) for i in range(5)]
    with (tmp_path / f"shard{suffix}").open("wb") as stream:
        if suffix == ".tar":
            write_webdataset(stream, clips, RUN)
        else:
            write_parquet(stream, clips, RUN, 7)
    read = list(read_shard(tmp_path, f"shard{suffix}"))
    assert len(read) == 5
    for clip, back in zip(clips, read, strict=True):
        assert_same(clip, back)


@pytest.mark.parametrize("formats", [("parquet",), ("webdataset",), ("parquet", "webdataset")])
def test_equal_clips_give_equal_files(tmp_path: Path, formats: tuple[str, ...]) -> None:
    hashes = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        manifest = write_shard(tmp_path / name, "0" * 16, [made_clip(i) for i in range(3)], [], RUN, formats)
        hashes.append([file.sha256 for file in manifest.files])
    assert hashes[0] == hashes[1]
    assert len(hashes[0]) == len(formats)


def test_tokens_are_stored_plain_and_the_map_and_the_rest_compressed(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    with (tmp_path / "s.parquet").open("wb") as stream:
        write_parquet(stream, [made_clip(0)], RUN, 7)
    group = pq.ParquetFile(tmp_path / "s.parquet").metadata.row_group(0)
    codecs = {group.column(i).path_in_schema: group.column(i).compression for i in range(group.num_columns)}
    assert codecs["tokens_bytes"] == codecs["centers_bytes"] == "UNCOMPRESSED"
    assert codecs["group_bytes"] == codecs["clip_id"] == "ZSTD"


def test_columns_are_the_documented_ones(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with (tmp_path / "s.parquet").open("wb") as stream:
        write_parquet(stream, [made_clip(0)], RUN, 7)
    schema = pq.read_schema(tmp_path / "s.parquet")
    assert schema.field("grid_thw").type == pa.list_(pa.int32(), 3)
    assert schema.field("pooled").type == pa.list_(pa.float32(), 7)
    assert schema.field("tokens_bytes").type == pa.large_binary()
    assert b"0123456789abcdef" in schema.metadata[b"vtm"]


def test_row_groups_are_small(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    clip = made_clip(0)
    wide = TokenSet(
        **{f.name: getattr(clip, f.name) for f in fields(TokenSet)} | {"tokens": np.zeros((11, 800_000), np.float16)}
    )
    with (tmp_path / "s.parquet").open("wb") as stream:
        write_parquet(stream, [wide, wide, wide], RUN, 7)
    file = pq.ParquetFile(tmp_path / "s.parquet")
    assert 2 * wide.tokens.nbytes > ROW_GROUP_BYTES
    assert [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)] == [1, 1, 1]


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def die_while_writing() -> None:
        with publish(tmp_path / "x") as stream:
            stream.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        die_while_writing()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_leaves_only_what_sweep_removes(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / ".tmp-1-x.parquet").write_bytes(b"half")
    (tmp_path / "shards" / "y.parquet").write_bytes(b"whole")
    (tmp_path / "shards" / ".tmp-2-z.parquet").write_bytes(b"being written by another run")
    os.utime(tmp_path / "shards" / ".tmp-1-x.parquet", (1, 1))
    sweep(tmp_path)
    (tmp_path / "shards" / ".tmp-2-z.parquet").unlink()
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["y.parquet"]


def test_manifest_is_the_commit(tmp_path: Path) -> None:
    failed = FailedRange(
        video_id="ab" * 16, uri="u", start_ns=9, end_ns=12, failure="timeout", message="slow", attempts=3
    )
    written = write_shard(tmp_path, "f" * 16, [made_clip(1), made_clip(3)], [failed], RUN, ("parquet",))
    (read,) = read_manifests(tmp_path).values()
    assert read == written
    assert read.failures == (failed,)
    assert read.damaged_frames == {"ab" * 16: 2}
    file = tmp_path / read.files[0].name
    assert hashlib.sha256(file.read_bytes()).hexdigest() == read.files[0].sha256
    sizes = shard_sizes(open_store(tmp_path))
    assert is_whole(sizes, read, ("parquet",))
    assert not is_whole(sizes, read, ("parquet", "webdataset"))
    file.unlink()
    assert not is_whole(shard_sizes(open_store(tmp_path)), read, ("parquet",))


def test_a_shard_of_failures_alone_has_no_data_file(tmp_path: Path) -> None:
    manifest = write_shard(tmp_path, "f" * 16, [], [], RUN, ("parquet",))
    assert manifest.files == ()
    assert is_whole({}, manifest, ("parquet",))


def committed(tmp_path: Path, formats: tuple[str, ...] = ("parquet", "webdataset")) -> Path:
    import json

    tmp_path.mkdir(exist_ok=True)
    for shard, indices in (("a" * 16, (0, 1, 2)), ("b" * 16, (3, 4))):
        write_shard(tmp_path, shard, [made_clip(i) for i in indices], [], RUN, formats)
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    return tmp_path


def test_plain_pyarrow_reads_it(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    rows = pq.read_table(sorted((committed(tmp_path) / "shards").glob("*.parquet"))).to_pylist()
    tokens = np.frombuffer(rows[4]["tokens_bytes"], dtype=rows[4]["tokens_dtype"]).reshape(rows[4]["tokens_shape"])
    np.testing.assert_array_equal(tokens, made_clip(4).tokens)


@pytest.mark.filterwarnings("ignore")
def test_datasets_reads_it(tmp_path: Path) -> None:
    import datasets

    files = str(committed(tmp_path / "out") / "shards" / "*.parquet")
    table: Any = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert len(table) == 5
    tokens = np.frombuffer(table[3]["tokens_bytes"], dtype=table[3]["tokens_dtype"]).reshape(table[3]["tokens_shape"])
    np.testing.assert_array_equal(tokens, made_clip(3).tokens)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves them to the collector
def test_webdataset_reads_it(tmp_path: Path) -> None:
    import webdataset

    tars = sorted(str(path) for path in (committed(tmp_path) / "webdataset").glob("*.tar"))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode())
    assert [sample["json"]["clip_index"] for sample in samples] == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(samples[2]["tokens.npy"], made_clip(2).tokens)
    np.testing.assert_array_equal(samples[2]["group.npy"], made_clip(2).group)
    assert samples[2]["json"]["fingerprint"] == RUN["fingerprint"]
