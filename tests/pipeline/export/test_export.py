"""Every format, read back as its reader's code reads it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from jobs.cli import main
from pipeline import TokenCache
from pipeline.cache.cut import Cut, coarsened
from pipeline.errors import RunFolderError, SettingsError
from pipeline.export import FORMATS, clip_retrieval
from pipeline.export.formats import export
from pipeline.export.sglang import request
from pipeline.export.target import ExportOptions
from pipeline.export.time_grid import time_grid
from tests.pipeline.cache.test_cut import clip_with_tree
from tests.pipeline.clips_made import RUN
from tests.pipeline.export.made_run import clips_of, unmerged, write_run

PLAIN = ExportOptions()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", [*clips_of(5), *clips_of(2, video_id="cd" * 16, uri="films/two.mp4")])


def patches_by_time(cache: TokenCache, video_id: str) -> list[tuple[float, Any]]:
    """(seconds, (10, 7)) of every frame."""
    return [
        (time_ns / 1e9, clip.unmerged().reshape(3, 10, 7)[step].astype(np.float32))
        for clip in cache.videos[video_id]
        for step, time_ns in enumerate(clip.frame_time_ns.tolist())
    ]


@pytest.mark.parametrize("step_s", [0.7, 2.0, 3.1])
def test_a_uniform_grid_is_the_mean_of_the_patches_in_each_step(out: Path, step_s: float) -> None:
    cache = TokenCache(out, arrays="numpy")
    grid = time_grid(cache.videos["ab" * 16], step_s)
    frames = patches_by_time(cache, "ab" * 16)
    assert len(grid.rows) == int(frames[-1][0] / step_s) + 1
    filled = 0
    for row, vector in enumerate(grid.rows):
        mine = [patches for time_s, patches in frames if row * step_s <= time_s < (row + 1) * step_s]
        if not mine:
            filled += 1
            mine = [[patches for time_s, patches in frames if time_s < row * step_s][-1]]
        np.testing.assert_allclose(vector, np.concatenate(mine).mean(axis=0), rtol=0, atol=1e-5)
    assert grid.filled == filled
    assert (filled > 0) == (step_s < 1.3)


def test_moment_detr(out: Path, tmp_path: Path) -> None:
    long = write_run(tmp_path / "long", clips_of(20, uri="films/a long one.mp4"))
    exported = export(long, "moment-detr", tmp_path / "out", ExportOptions(step_s=0.5, name_by="file"))
    vids = [json.loads(line)["vid"] for line in (tmp_path / "out" / "index.jsonl").read_text().splitlines()]
    assert vids == ["a_long_one_0.0_37.5", "a_long_one_37.5_75.0", "a_long_one_75.0_77.0"]
    # As StartEndDataset._get_video_feat_by_vid reads it: nothing is cut off.
    pieces = [np.load(tmp_path / "out" / f"{vid}.npz")["features"][:75].astype(np.float32) for vid in vids]
    whole = time_grid(TokenCache(long, arrays="numpy").videos["ab" * 16], 0.5).rows
    np.testing.assert_allclose(
        np.concatenate(pieces), whole / np.linalg.norm(whole, axis=1, keepdims=True), rtol=0, atol=1e-6
    )
    assert exported.rows == len(whole) == 154
    assert any("rows without a frame got the one on display" in note for note in exported.notes)


def test_actionformer(out: Path, tmp_path: Path) -> None:
    export(out, "actionformer", tmp_path / "out", ExportOptions(step_s=2.6, name_by="file"))
    database = json.loads((tmp_path / "out" / "dataset.json").read_text())["database"]
    assert list(database) == ["one", "two"]
    feats = np.load(tmp_path / "out" / "one.npy").astype(np.float32)
    # As THUMOS14Dataset.__getitem__ places a moment: frame 6 at 7.8 s is the first half of row 3.
    at = 7.8 * database["one"]["fps"] / 1 - 0.5 * 1 / 1
    assert at == pytest.approx(3 - 0.5)
    cache = TokenCache(out, arrays="numpy")
    frames = [patches for _, patches in patches_by_time(cache, "ab" * 16)]
    np.testing.assert_allclose(feats[3], np.concatenate(frames[6:8]).mean(axis=0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8", "int4"])
def test_npy(tmp_path: Path, dtype: str) -> None:
    run = write_run(tmp_path / "run", clips_of(3, dtype=dtype))
    export(run, "npy", tmp_path / "out", PLAIN)
    export(run, "npy", tmp_path / "spread", ExportOptions(spread=True))
    for clip in TokenCache(run, arrays="numpy"):
        np.testing.assert_array_equal(np.load(tmp_path / "out" / f"{clip.clip_id}.npy"), clip.tokens)
        np.testing.assert_array_equal(np.load(tmp_path / "out" / f"{clip.clip_id}.sizes.npy"), clip.sizes)
        np.testing.assert_array_equal(np.load(tmp_path / "out" / f"{clip.clip_id}.time_s.npy"), clip.time_ns / 1e9)
        np.testing.assert_array_equal(np.load(tmp_path / "spread" / f"{clip.clip_id}.npy"), clip.unmerged())


def test_vllm_ec(out: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"one row a patch, 30 for clip .* 11 merged tokens: add --spread"):
        export(out, "vllm-ec", tmp_path / "out", PLAIN)
    assert not (tmp_path / "out").exists()
    export(out, "vllm-ec", tmp_path / "out", ExportOptions(spread=True))
    whole = write_run(tmp_path / "whole", [unmerged(clip) for clip in clips_of(2, dtype="bfloat16")])
    export(whole, "vllm-ec", tmp_path / "whole-out", PLAIN)
    for run, folder in ((out, "out"), (whole, "whole-out")):
        for clip in TokenCache(run):
            # As ECExampleConnector.start_load_caches reads it.
            path = tmp_path / folder / clip.clip_id / "encoder_cache.safetensors"
            ec_cache = safetensors.torch.load_file(path)["ec_cache"]
            assert ec_cache.dtype == clip.tokens.dtype
            assert torch.equal(ec_cache, clip.unmerged())
            assert len(ec_cache) == int(np.prod(clip.grid_thw))


def test_sglang(out: Path, tmp_path: Path) -> None:
    export(out, "sglang", tmp_path / "out", PLAIN)
    clip = TokenCache(out)[1]
    path = tmp_path / "out" / f"{clip.clip_id}.safetensors"
    item = request(
        path,
        prefix_ids=(7, 8, 9),
        suffix_ids=(5, 6),
        video_token_id=99,
        tokens_per_second=2,
        first_s=3.9,
    )
    assert item["input_ids"].tolist() == [7, 8, 9, *[99] * 11, 5, 6]
    assert torch.equal(item["precomputed_embeddings"], clip.tokens)
    assert item["video_grid_thw"].tolist() == [[3, 2, 5]]
    positions = item["mrope_positions"]
    assert positions.shape == (3, 16)
    assert positions[:, :3].tolist() == [[0, 1, 2]] * 3
    for token in range(11):
        time_s = 3.9 + 1.3 * float(clip.centers[token, 0]) - 3.9
        y, x = (3 + round(float(clip.centers[token, axis])) for axis in (1, 2))
        assert positions[:, 3 + token].tolist() == [3 + int(time_s * 2 + 1e-9), y, x]
    start = int(positions[:, 3:14].max()) + 1
    assert positions[:, 14:].tolist() == [[start, start + 1]] * 3
    assert item["mrope_position_delta"].tolist() == [[start + 2 - 16]]
    with pytest.raises(SettingsError, match="first_s 30 is after the first token"):
        request(path, prefix_ids=(), suffix_ids=(), video_token_id=1, tokens_per_second=2, first_s=30)


def test_clip_retrieval(out: Path, tmp_path: Path) -> None:
    exported = export(out, "clip-retrieval", tmp_path / "out", PLAIN)
    vectors = np.load(tmp_path / "out" / "img_emb" / "img_emb_0.npy")
    table = pq.read_table(tmp_path / "out" / "metadata" / "metadata_0.parquet")
    cache = TokenCache(out, arrays="numpy")
    assert table.column("clip_id").to_pylist() == cache.clip_ids
    assert table.column("image_path").to_pylist()[-1] == "films/two.mp4"
    np.testing.assert_array_equal(vectors, np.stack([clip.pooled for clip in cache]).astype(np.float16))
    assert exported.rows == 7
    (tmp_path / "parts").mkdir()
    clip_retrieval.export(cache, tmp_path / "parts", PLAIN, partition_rows=3)
    parts = [np.load(path) for path in sorted((tmp_path / "parts" / "img_emb").glob("*.npy"))]
    assert [len(part) for part in parts] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(parts), vectors)


def max_sim(query: Any, tokens: Any) -> float:
    unit = [rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True) for rows in (query, tokens)]
    return float((unit[0] @ unit[1].T).max(axis=1).sum())


def test_lancedb_finds_what_numpy_finds(out: Path, tmp_path: Path) -> None:
    lancedb = pytest.importorskip("lancedb", reason="lancedb is not installed: pip install 'vtm-pipeline[lance]'")
    export(out, "lance", tmp_path / "out", PLAIN)
    table = lancedb.connect(tmp_path / "out").open_table("clips")
    assert table.count_rows() == 7
    cache = TokenCache(out, arrays="numpy")
    query = cache[3].tokens[2:6].astype(np.float32)
    scores = {clip.clip_id: max_sim(query, clip.tokens) for clip in cache}
    found = table.search(query, vector_column_name="tokens").distance_type("cosine").limit(7).to_list()
    assert [row["clip_id"] for row in found] == sorted(scores, key=lambda clip_id: -scores[clip_id])
    assert found[0]["clip_id"] == cache.clip_ids[3]
    for row in found:
        assert len(query) - row["_distance"] == pytest.approx(scores[row["clip_id"]], abs=1e-3)
        np.testing.assert_array_equal(np.array(row["tokens"], np.float16), cache[row["clip_id"]].tokens)
        assert row["sizes"] == cache[row["clip_id"]].sizes.tolist()


@pytest.mark.filterwarnings("ignore:.*Local mode")
def test_qdrant_finds_what_numpy_finds(out: Path, tmp_path: Path) -> None:
    qdrant_client = pytest.importorskip(
        "qdrant_client", reason="qdrant-client is not installed: pip install 'vtm-pipeline[qdrant]'"
    )
    from pipeline.export.qdrant import check_sizes, upload

    client = qdrant_client.QdrantClient(":memory:")
    cache = TokenCache(out, arrays="numpy")
    upload(cache, client, "clips")
    query = cache[3].tokens[2:6].astype(np.float32)
    scores = {clip.clip_id: max_sim(query, clip.tokens) for clip in cache}
    found = client.query_points("clips", query=query.tolist(), using="tokens", limit=7).points
    assert [point.payload["clip_id"] for point in found] == sorted(scores, key=lambda clip_id: -scores[clip_id])
    for point in found:
        assert point.score == pytest.approx(scores[point.payload["clip_id"]], abs=1e-3)
    nearest = client.query_points("clips", query=cache[5].pooled.tolist(), using="pooled", limit=1).points
    assert nearest[0].payload["clip_id"] == cache.clip_ids[5]
    with pytest.raises(SettingsError, match="collection clips is there already"):
        upload(cache, client, "clips")
    large = RUN | {"encoder": {"name": "made", "dim": 100_000}}
    (out / "run.json").write_text(json.dumps(large))
    with pytest.raises(
        SettingsError, match="fewer than 1,048,576 numbers a point: export with --tokens-per-clip 10 or fewer"
    ):
        check_sizes(TokenCache(out))


@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"lance", "qdrant", "vllm-ec"}))
def test_budgets_apply(name: str, tmp_path: Path) -> None:
    clip, _, _ = clip_with_tree("float16")
    clip = replace(clip, video_id="ab" * 16, clip_id=f"{'ab' * 16}-000000", frame_time_ns=np.arange(6) * 10**9)
    tree = {"strategy": "tree"}
    run = RUN | {"settings": tree, "fingerprinted": tree | {"keep": 0.4}, "encoder": {"name": "made", "dim": 24}}
    out = write_run(tmp_path / "run", [clip], run)
    exported = export(out, name, tmp_path / "out", PLAIN, tokens=5)
    if name in ("npy", "sglang"):
        assert exported.rows == 5
    if name == "moment-detr":
        cut = coarsened(clip, Cut(tokens=5))
        rows = cut.tokens[cut.group].astype(np.float32).reshape(3, 40, 24).mean(axis=1)
        (path,) = (tmp_path / "out").glob("*.npz")
        np.testing.assert_allclose(
            np.load(path)["features"], rows / np.linalg.norm(rows, axis=1, keepdims=True), rtol=0, atol=1e-5
        )
    about = json.loads((tmp_path / "out" / "export.json").read_text())
    assert (about["fingerprint"], about["budget"]) == (RUN["fingerprint"], {"tokens": 5})


@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"lance", "qdrant"}))
def test_names_never_leave_the_folder(name: str, tmp_path: Path) -> None:
    clips = clips_of(2, video_id="../../../evil/x", uri="../../../evil/..")
    run = write_run(tmp_path / "deep" / "run", clips)
    before = {path for path in tmp_path.rglob("*")}
    for name_by in ("id", "file"):
        takes = name in ("moment-detr", "actionformer", "npy")
        options = ExportOptions(spread=name == "vllm-ec", name_by=name_by if takes else "id")  # type: ignore[arg-type]
        target = tmp_path / "deep" / "out" / name_by
        export(run, name, target, options)
        assert len(list(target.rglob("*"))) > 1
    assert all((tmp_path / "deep" / "out") in (path, *path.parents) for path in set(tmp_path.rglob("*")) - before)


def test_what_cannot_be_exported(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").write_text("")
    same = [*clips_of(1, uri="a/film.mp4"), *clips_of(1, video_id="cd" * 16, uri="b/film.avi")]
    write_run(tmp_path / "same", same)
    for arguments, text in (
        ([str(out), "--to", "npy", "--out", str(tmp_path / "full")], "is not empty"),
        ([str(out), "--to", "npy", "--out", str(tmp_path / "n"), "--step-s", "2"], "--to npy has no use for --step-s"),
        ([str(out), "--to", "sglang", "--out", str(tmp_path / "n"), "--spread"], "it takes no options"),
        ([str(out), "--to", "moment-detr", "--out", str(tmp_path / "n"), "--step-s", "0"], "--step-s 0.0 must be"),
        ([str(out), "--to", "lance", "--out", str(tmp_path / "n"), "--collection", "../x"], "--collection ../x"),
        ([str(out), "--to", "npy", "--out", str(tmp_path / "n"), "--keep", "0.1"], "no merge trees"),
        ([str(tmp_path / "same"), "--to", "npy", "--out", str(tmp_path / "n"), "--name-by", "file"], "named film"),
    ):
        assert main(["export", *arguments]) == 2
        told = capsys.readouterr().err
        assert text in told
        assert told.count("\n") == 1
        assert not (tmp_path / "n").exists()
    write_run(tmp_path / "empty", [])
    with pytest.raises(RunFolderError, match="holds no clips to export"):
        export(tmp_path / "empty", "npy", tmp_path / "n", PLAIN)
    assert main(["export", str(out), "--to", "npy", "--out", str(tmp_path / "n"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 77
