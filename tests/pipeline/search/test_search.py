"""`vtm search` over a small run, as users call it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from jobs.cli import main
from pipeline import TokenCache
from pipeline.cache.cut import Cut, coarsened
from pipeline.search import coarse_tokens, moments
from pipeline.search.encoders import PictureEncoder
from pipeline.search.match import Match
from pipeline.search.query import directions, query_of_pictures
from pipeline.search.searcher import Searcher
from pipeline.shards.manifest import write_shard
from tests.pipeline.clips_made import RUN, made_clip
from tests.pipeline.runs import run, some_videos, tiny_recipe
from tests.synthetic import make_video
from tests.vtm.encoders.random_checkpoints import write_checkpoint

SHOT_FRAMES = 13


def scene(number: int) -> NDArray[np.uint8]:
    """(64, 96, 3) coloured blocks: others in each shot, which drift to the right."""
    blocks = np.random.default_rng(number // SHOT_FRAMES).integers(16, 235, (4, 6, 3), dtype=np.uint8)
    return np.roll(blocks.repeat(16, axis=0).repeat(16, axis=1), number % SHOT_FRAMES, axis=1)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of 7, 3 and 1 clips."""
    folder = tmp_path_factory.mktemp("videos")
    others = some_videos(folder)[1:]
    drawn = [scene(number) for number in range(251)]
    return [make_video(folder / "long.mp4", frames=drawn, gop=50, bframes=2), *others]


@pytest.fixture(scope="module")
def out(videos: list[Path], tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search") / "out"
    run(videos, folder, tiny_recipe(tiny_encoder, strategy="tree", keep=0.5))
    return folder


def found(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["search", *map(str, arguments), "--json"]) == 0
    results: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["results"]
    assert [set(result) for result in results] == [
        {"uri", "video_id", "clip_id", "start_s", "end_s", "time_s", "score"} for _ in results
    ]
    scores = [result["score"] for result in results]
    assert scores == sorted(scores, reverse=True)
    return results


def cut_out(path: Path, number: int) -> Path:
    """A frame of `long.mp4` at another size and quality."""
    Image.fromarray(scene(number)).resize((131, 83)).save(path, quality=40)
    return path


@pytest.mark.parametrize("number", [19, 97, 203])
def test_a_frame_cut_from_a_video_finds_its_clip_and_time(
    number: int, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = cut_out(tmp_path / "frame.jpg", number)
    best = found(capsys, out, "--image", image)[0]
    assert best["uri"].endswith("long.mp4")
    assert best["start_s"] <= number / 25 < best["end_s"]
    assert abs(best["time_s"] - number / 25) <= 0.1
    sampled = found(capsys, out, "--image", image, "--sampled")[0]
    assert sampled["time_s"] * 2 % 1 == 0, "frames are sampled twice a second"
    assert abs(sampled["time_s"] - number / 25) <= 1


def test_the_answer_for_people_and_the_contact_sheet(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = cut_out(tmp_path / "frame.jpg", 97)
    assert main(["search", str(out), "--image", str(image), "--top", "5", "--sheet", str(tmp_path / "s.png")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert "long.mp4" in lines[1]
    with Image.open(tmp_path / "s.png") as sheet:
        pixels = np.asarray(sheet).astype(int)
    # The query in the first row and the best match in the second look alike, whatever lies around them.
    query, match = pixels[12 + 20 : 12 + 170, 40:300], pixels[12 + 236 + 20 : 12 + 236 + 170, 40:300]
    assert query.std() > 20
    assert np.corrcoef(query.ravel(), match.ravel())[0, 1] > 0.9


def test_a_clip_is_scored_by_maxsim_over_its_cut(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = TokenCache(out)
    monkeypatch.setattr(coarse_tokens, "LEAST_TOKENS", 3)
    searcher = Searcher(cache, keep=0.3)
    searcher.load()
    left = Cut(tokens=14)  # 0.3 of 3 frames of 3 x 5 patches, rounded up.
    asked = coarsened(cache.token_set(2), left)
    matches = searcher.search(searcher.query_of_clips([asked.clip_id]), top=99)
    assert len(matches) == len(cache) - 1
    assert asked.clip_id not in {match.clip_id for match in matches}
    for match in matches:
        clip = coarsened(cache.token_set(match.position), left)
        best_M = (directions(asked) @ directions(clip).T).amax(dim=1).numpy()
        assert match.score == pytest.approx(float((best_M * asked.sizes).sum() / asked.sizes.sum()), abs=5e-4)
        assert match.time_ns in clip.frame_time_ns


def test_fewer_candidates_are_those_of_the_nearest_pooled_vectors(out: Path) -> None:
    cache = TokenCache(out)
    searcher = Searcher(cache, candidates=3)
    query = searcher.query_of_clips([cache.clip_ids[4]])
    by_pooled = searcher.search(query, top=3, rank="pooled")
    assert {m.position for m in searcher.search(query, top=9)} == {m.position for m in by_pooled}
    everyone = Searcher(cache, candidates=0)
    assert len(everyone.search(query, top=99)) == len(cache) - 1
    cosines = cache.vectors("pooled") @ cache.token_set(4).pooled
    assert by_pooled[0].score == pytest.approx(float(np.sort(cosines)[-2]), abs=1e-6)


def test_a_loaded_searcher_chooses_candidates_by_coarse_tokens(
    out: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coarse_tokens, "COARSE_TOKENS", 7)
    cache = TokenCache(out)
    searcher = Searcher(cache, candidates=2)
    searcher.load()
    query = query_of_pictures([PictureEncoder(cache.run).encode(scene(97))])
    expected = []
    for position in range(len(cache)):
        coarse = directions(coarsened(cache.token_set(position), Cut(tokens=7)))
        expected.append(float((query.tokens_QD @ coarse.T).amax(dim=1) @ query.weights_Q))
    best = np.argsort(expected)[::-1][:2].tolist()
    assert {match.position for match in searcher.search(query)} == set(best)
    unloaded = {match.position for match in Searcher(cache, candidates=2).search(query)}
    assert unloaded == {match.position for match in searcher.search(query, top=2, rank="pooled")}


def test_copies_in_several_videos_are_all_looked_up_and_little_else(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(match: Match, *_: object) -> Match:
        looked_at.append(match.position)
        return replace(match, time_ns=1) if match.position in same else match

    cache = TokenCache(out)
    searcher = Searcher(cache)
    matches = searcher.search(searcher.query_of_clips([cache.clip_ids[4]]), top=9)
    order = [match.position for match in matches]
    monkeypatch.setattr(moments, "at_the_very_frame", look)
    for num_same, num_looked_at in ((0, 3), (1, 3), (4, 5), (9, 9)):
        looked_at: list[int] = []
        same = order[:num_same]
        found = moments.at_very_frames(matches, [], out, cache.run)
        assert looked_at == order[:num_looked_at]
        assert [match.position for match in found] == order
        assert sum(match.time_ns == 1 for match in found) == num_same


def test_a_span_of_a_video(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    by_name = found(capsys, out, "--video", "long.mp4", "--start", "1.6", "--end", "4.2", "--top", "50")
    cache = TokenCache(out)
    video_id = (
        by_name[0]["video_id"]
        if by_name[0]["uri"].endswith("long.mp4")
        else next(result["video_id"] for result in by_name if result["uri"].endswith("long.mp4"))
    )
    by_id = found(capsys, out, "--video", video_id[:12], "--start", "1.6", "--end", "4.2", "--top", "50")
    assert by_id == by_name
    left_out = {clip.clip_id for clip in cache} - {result["clip_id"] for result in by_name}
    assert left_out == {f"{video_id}-{index:06d}" for index in (1, 2)}, "clips of 1.5 s: the span lies in two of them"


def test_several_examples_count_alike(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [cut_out(tmp_path / f"{number}.jpg", number) for number in (19, 203)]
    both = {r["clip_id"]: r["score"] for r in found(capsys, out, "--image", *images, "--top", "50")}
    each = [{r["clip_id"]: r["score"] for r in found(capsys, out, "--image", i, "--top", "50")} for i in images]
    for clip_id, score in both.items():
        assert score == pytest.approx((each[0][clip_id] + each[1][clip_id]) / 2, abs=5e-4)


def test_on_an_object_store_and_in_the_other_format(
    videos: list[Path], tiny_encoder: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"memory://{tmp_path.name}/run"
    run(videos, address, tiny_recipe(tiny_encoder, strategy="tree", keep=0.5), format=("webdataset",))  # type: ignore[arg-type]
    image = cut_out(tmp_path / "frame.jpg", 97)
    assert found(capsys, address, "--image", image) == found(capsys, out, "--image", image)


@pytest.fixture(scope="module")
def clip_run(videos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of a random CLIP with a text tower, and its checkpoint."""
    folder = write_checkpoint("clip", tmp_path_factory.mktemp("clip") / "encoder")
    tokenizer = Tokenizer(models.WordLevel({"<pad>": 0, "a": 3, "red": 4, "car": 5, "?": 6}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    run(videos[1:], folder.parent / "out", tiny_recipe(folder))
    return folder.parent / "out", folder


def test_text_is_compared_with_the_embeddings(clip_run: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    from vtm import load_text_encoder

    out, encoder = clip_run
    text = torch.nn.functional.normalize(load_text_encoder(encoder).embed(["a red car"])[0], dim=0)
    expected = {clip.clip_id: float(text @ clip.embedding) for clip in TokenCache(out)}
    results = found(capsys, out, "--text", "a red car", "--top", "50")
    assert {r["clip_id"]: pytest.approx(r["score"], abs=1e-5) for r in results} == expected
    assert {r["time_s"] for r in results} == {None}


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main(["search", *map(str, arguments)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("vtm: ")
    return line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--text", "a car"], "'dinov2' has no text tower"),
        (["--image", "gone.jpg"], "--image gone.jpg: no such file"),
        (["--image", __file__], "is no picture"),
        (["--clip", "ab-000001"], "--clip ab-000001 is no clip of"),
        (["--video", "gone.mp4"], "--video gone.mp4 matches no video of"),
        (["--video", "long.mp4", "--start", "99"], "has no sampled frame in this time; its last one is at "),
        (["--video", "long.mp4", "--start", "2", "--end", "1"], "--start 2 to --end 1: video"),
        (["--clip", "x", "--start", "1"], "--start and --end are of --video"),
        (["--clip", "x", "--top", "0"], "--top 0 must be 1 or more"),
        (["--clip", "x", "--candidates", "-1"], "--candidates -1 must be 0"),
        (["--clip", "x", "--keep", "2"], "keep 2.0 must be above 0"),
        (["--clip", "x", "--sheet", "a.pdf"], "--sheet a.pdf must end in .png"),
    ],
)
def test_bad_usage_is_one_line(
    arguments: list[str], expected: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in refused(capsys, out, *arguments)


def test_a_run_without_clips_or_with_others_or_without_embeddings(
    out: Path, tmp_path: Path, clip_run: tuple[Path, Path], videos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "run.json").write_text(json.dumps(RUN))
    assert "holds no clips yet" in refused(capsys, tmp_path / "empty", "--clip", "x")
    shutil.copytree(out, tmp_path / "mixed")
    write_shard(tmp_path / "mixed", "a" * 16, [made_clip(0)], [], RUN, ("parquet",))
    assert "was made with fingerprint 0123456789abcdef" in refused(capsys, tmp_path / "mixed", "--clip", "x")
    assert "holds no run: there is no run.json" in refused(capsys, tmp_path / "nowhere", "--clip", "x")
    run(videos[2:], tmp_path / "bare", tiny_recipe(clip_run[1], embedding="never"))
    assert "stores no image embedding" in refused(capsys, tmp_path / "bare", "--text", "a car")


def test_other_weights_under_the_same_name_are_refused(
    out: Path, tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_checkpoint("dinov2", tmp_path / "other")
    image = cut_out(tmp_path / "frame.jpg", 97)
    assert "has other weights than the run's" in refused(capsys, out, "--image", image, "--encoder", other)
    moved = shutil.copytree(tiny_encoder, tmp_path / "moved")
    assert found(capsys, out, "--image", image, "--encoder", moved)[0]["start_s"] == 3.0


def test_where_the_video_is_gone_the_sampled_time_stands(
    videos: list[Path], tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = shutil.copy(videos[0], tmp_path / "film.mp4")
    run([film], tmp_path / "out", tiny_recipe(tiny_encoder, strategy="tree", keep=0.5))
    Path(film).unlink()
    image = cut_out(tmp_path / "frame.jpg", 97)
    sheet = tmp_path / "made" / "sheet.png"
    best = found(capsys, tmp_path / "out", "--image", image, "--sheet", sheet)[0]
    assert best["time_s"] * 2 % 1 == 0
    assert sheet.is_file()
