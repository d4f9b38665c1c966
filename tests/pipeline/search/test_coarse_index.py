"""The approximate index: near to the exact candidates, made again as the run grows, refused where it is another's."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.cli import main
from pipeline import TokenCache
from pipeline.errors import StoreError
from pipeline.search import coarse_index
from pipeline.search.coarse_index import CoarseIndex, open_index
from pipeline.search.searcher import Searcher
from tests.pipeline.runs import run, some_videos, tiny_recipe

faiss = pytest.importorskip("faiss")
CLIPS, TOKENS, DIM = 1009, 7, 24


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def made_tokens() -> NDArray[np.float32]:
    """(CLIPS, TOKENS, DIM): each token near one of 97 directions."""
    generator = np.random.default_rng(5)
    centers = generator.normal(size=(97, DIM))
    return unit(centers[generator.integers(0, 97, (CLIPS, TOKENS))] + 0.4 * generator.normal(size=(CLIPS, TOKENS, DIM)))


def maxsim(tokens_QD: NDArray[Any], weights_Q: NDArray[Any], clips_CKD: NDArray[Any]) -> NDArray[Any]:
    """(C,) said plainly."""
    scores: NDArray[Any] = np.einsum("qd,ckd->cqk", tokens_QD, clips_CKD).max(axis=2) @ weights_Q
    return scores


def test_the_best_clips_are_among_the_candidates() -> None:
    clips_CKD = made_tokens()
    index = coarse_index._made(
        faiss, CLIPS, TOKENS, lambda wanted: iter(clips_CKD[wanted.start : wanted.stop : wanted.step])
    )
    made = CoarseIndex(index, TOKENS)
    generator = np.random.default_rng(6)
    found = 0
    for clip in generator.integers(0, CLIPS, 40).tolist():
        query_QD = unit(clips_CKD[clip, :3] + 0.1 * generator.normal(size=(3, DIM)))
        weights_Q = np.array([0.5, 0.3, 0.2], np.float32)
        exact_C = maxsim(query_QD, weights_Q, clips_CKD)
        positions, scores = made.candidates(query_QD, weights_Q, 20)
        assert len(set(positions.tolist())) == len(positions) == 20
        assert (np.diff(scores) <= 0).all()
        # What it says of the best clip is its MaxSim, to 8 bits.
        assert scores[0] == pytest.approx(exact_C[positions[0]], abs=0.02)
        found += len(set(exact_C.argsort()[::-1][:5].tolist()) & set(positions.tolist()))
    assert found >= 0.95 * 40 * 5


@pytest.fixture(scope="module")
def out(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("indexed")
    run(some_videos(folder)[:1], folder / "out", tiny_recipe(tiny_encoder, strategy="tree", keep=0.5))
    return folder / "out"


def test_search_by_an_index_equals_exact_search_on_a_small_run(out: Path, tmp_path: Path) -> None:
    cache = TokenCache(out)
    exact, indexed = Searcher(cache), Searcher(cache, index=tmp_path / "clips.faiss")
    query = exact.query_of_clips([cache.clip_ids[2]])
    assert len(cache) > 3
    assert indexed.search(query, top=3) == exact.search(query, top=3)
    pooled = indexed.search(query, top=3, rank="pooled")
    assert {match.position for match in pooled} <= set(range(len(cache))) - {2}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips.faiss", "clips.faiss.json"]


def test_pooled_vectors_are_indexed_where_there_is_no_tree(tiny_encoder: Path, tmp_path: Path) -> None:
    run(some_videos(tmp_path)[:1], tmp_path / "out", tiny_recipe(tiny_encoder, strategy="naive", keep=0.5))
    cache = TokenCache(tmp_path / "out")
    exact, indexed = Searcher(cache), Searcher(cache, index=tmp_path / "clips.faiss")
    query = exact.query_of_clips([cache.clip_ids[1]])
    assert indexed.search(query, top=3) == exact.search(query, top=3)


def test_an_index_is_read_again_and_made_again_as_the_run_grows(out: Path, tmp_path: Path) -> None:
    cache, path = TokenCache(out), tmp_path / "clips.faiss"
    reads: list[range] = []

    def read(wanted: range) -> Any:
        reads.append(wanted)
        return iter(made_tokens()[wanted.start : wanted.stop : wanted.step])

    open_index(path, cache, TOKENS, read)
    assert len(reads) == 2
    open_index(path, cache, TOKENS, read)
    assert len(reads) == 2
    about = path.with_name("clips.faiss.json")
    about.write_text(json.dumps(json.loads(about.read_text()) | {"clips": "of last week"}))
    open_index(path, cache, TOKENS, read)
    assert len(reads) == 4
    open_index(path, cache, TOKENS, read)
    assert len(reads) == 4
    path.write_bytes(b"damaged")
    open_index(path, cache, TOKENS, read)
    assert len(reads) == 6
    assert path.stat().st_size > 7


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        (lambda path: path.write_bytes(b"a poem"), "is not known to be an index of a run"),
        (lambda path: (path.touch(), path.with_name("i.json").write_text('{"fingerprint": "0"}')), "other settings"),
        (lambda path: (path.touch(), path.with_name("i.json").write_text("[]")), "is not known to be an index"),
    ],
)
def test_a_file_that_is_no_index_of_the_run_stays(
    prepare: Any, expected: str, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(tmp_path / "i")
    before = (tmp_path / "i").read_bytes()
    assert main(["search", str(out), "--clip", TokenCache(out).clip_ids[0], "--index", str(tmp_path / "i")]) == 2
    assert expected in capsys.readouterr().err
    assert (tmp_path / "i").read_bytes() == before


def test_a_place_that_cannot_be_written_is_known_before_the_run_is_read(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def read(wanted: range) -> Any:
        raise AssertionError("all clips are read for nothing")

    with pytest.raises(StoreError, match="cannot be written"):
        open_index(tmp_path / "gone" / "i", TokenCache(out), TOKENS, read)
    assert main(["search", str(out), "--clip", TokenCache(out).clip_ids[0], "--index", str(tmp_path / "gone/i")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be written" in line


def test_one_that_was_stopped_half_made_is_made_again(out: Path, tmp_path: Path) -> None:
    cache, path = TokenCache(out), tmp_path / "clips.faiss"

    def stopped(wanted: range) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_index(path, cache, TOKENS, stopped)
    assert not list(tmp_path.iterdir())
    open_index(path, cache, TOKENS, lambda clips: iter(made_tokens()[clips.start : clips.stop : clips.step]))
    with pytest.raises(KeyboardInterrupt):
        # The run has other clips now.
        open_index(path, cache, TOKENS - 1, stopped)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["clips.faiss", "clips.faiss.json"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--text", "a dog", "--index", "i"), "leave it out with --text"),
        (("--clip", "ID", "--candidates", "0", "--index", "i"), "leave it out with --text"),
    ],
)
def test_bad_options_are_one_line(
    arguments: tuple[str, ...], expected: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [TokenCache(out).clip_ids[0] if argument == "ID" else argument for argument in arguments]
    assert main(["search", str(out), *given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line


def test_without_faiss_the_extra_is_named(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert main(["search", str(out), "--clip", TokenCache(out).clip_ids[0], "--index", str(tmp_path / "i")]) == 2
    assert "pip install 'vtm-pipeline[faiss]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
