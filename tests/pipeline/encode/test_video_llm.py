"""The vision parts of video-LLMs as encoders: which files are opened, what is refused, and what a run says of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as their_smart_resize

from jobs.cli import main
from pipeline import TokenCache
from pipeline.encode.video_llm.describe import describe_video_llm, is_video_llm, video_llm_features
from pipeline.encode.video_llm.families import VIDEO_LLMS
from pipeline.settings import Recipe
from pipeline.smart_resize import smart_resize
from pipeline.values import SmartSize
from pipeline.verify import verify
from tests.pipeline.encode.video_llm_checkpoints import MAKERS, make_video_llm
from tests.pipeline.runs import rows_of, run, some_videos, tiny_recipe
from vtm.encoders.checkpoint import files
from vtm.encoders.threads import computing_alone

ANY_SIZE = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "video_llama_3")
FRAMES = 5


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: make_video_llm(family, tmp_path_factory.mktemp(family)) for family in MAKERS}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of two shapes: 64 x 96 and 48 x 80 px."""
    return some_videos(tmp_path_factory.mktemp("videos"))[1:]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other make small models slow."""
    with computing_alone():
        yield


def recipe_of(folder: Path, family: str, **settings: Any) -> Recipe:
    size = {"size_px": "16x24"} if family in ANY_SIZE else {}
    return Recipe(encoder=str(folder), **size | settings)


def tokens_of(folder: Path, family: str, **settings: Any) -> torch.Tensor:
    recipe = recipe_of(folder, family, **settings)
    geometry, _ = describe_video_llm(recipe)
    return video_llm_features(recipe, 2, torch.float32, "cpu")(frames_of(geometry.image)).patches_1KD


def frames_of(image: Any, count: int = FRAMES) -> NDArray[np.uint8]:
    size = (count, image.crop_height_px, image.crop_width_px, 3)
    return np.random.default_rng(11).integers(0, 256, size, dtype=np.uint8)


def rename(folder: Path, change: Callable[[str], str]) -> None:
    path = folder / "model.safetensors"
    save_file({change(name): tensor for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})


@pytest.mark.parametrize("family", MAKERS)
def test_only_the_shards_with_vision_weights_are_opened(
    family: str, checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others may be missing; the tokens are those of the whole file."""
    folder = make_video_llm(family, tmp_path, shards=6)
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    parts = VIDEO_LLMS[family].parts
    wanted = {file for name, file in index.items() if name.removeprefix("model.").split(".")[0] in parts}
    assert 0 < len(wanted) < 6
    opened: list[str] = []
    real = files.safe_open
    monkeypatch.setattr(files, "safe_open", lambda path, **given: (opened.append(path.name), real(path, **given))[1])
    for file in set(index.values()) - wanted:
        (folder / file).unlink()
    assert torch.equal(tokens_of(folder, family), tokens_of(checkpoints[family], family))
    assert set(opened) - {"model.safetensors"} == wanted


def test_of_a_hub_id_only_these_shards_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_video_llm("qwen2_5_vl", tmp_path, shards=6)
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    fetched: list[list[str]] = []

    def fetch(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        fetched.append([pattern for pattern in allow_patterns if "safetensors" in pattern])
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    geometry, _ = describe_video_llm(Recipe(encoder="owner/model", size_px="16x24"))
    assert geometry.family == "qwen2_5_vl"
    wanted = sorted({file for name, file in index.items() if name.startswith("visual.")})
    assert 0 < len(wanted) < 6
    assert [files for files in fetched if files] == [wanted]


@pytest.mark.parametrize("family", MAKERS)
def test_names_with_and_without_their_prefix(family: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    expected = tokens_of(checkpoints[family], family)
    changes: list[Callable[[str], str]] = [
        lambda name: "model." + name.removeprefix("model."),
        lambda name: name.removeprefix("model."),
    ]
    if family.startswith("llava"):
        # As the hub has them: the tower of CLIP and SigLIP was wrapped once more.
        changes.append(lambda name: name.replace("vision_tower.", "vision_tower.vision_model."))
    for number, change in enumerate(changes):
        folder = make_video_llm(family, tmp_path / str(number))
        rename(folder, change)
        assert torch.equal(tokens_of(folder, family), expected)


@pytest.mark.parametrize("family", MAKERS)
def test_bytes_do_not_depend_on_grouping_or_threads(family: str, checkpoints: dict[str, Path]) -> None:
    recipe = recipe_of(checkpoints[family], family)
    geometry, _ = describe_video_llm(recipe)
    frames = frames_of(geometry.image)
    encoder = video_llm_features(recipe, 2, torch.float32, "cpu")
    per_row = geometry.input.frames_per_pass
    parts = [encoder(frames[start : start + per_row]).patches_1KD for start in range(0, FRAMES, per_row)]
    torch.set_num_threads(2)
    whole = video_llm_features(recipe, 2, torch.float32, "cpu")(frames)
    assert torch.equal(whole.patches_1KD, torch.cat(parts, dim=1))
    assert whole.grid[0] == -(-FRAMES // per_row)


def test_a_run_says_what_it_holds(checkpoints: dict[str, Path], videos: list[Path], tmp_path: Path) -> None:
    """Qwen3-VL: 16 x 24 px are 2 x 3 tokens of 8 px, every second at 2 a second and two frames a row."""
    folder, out = checkpoints["qwen3_vl"], tmp_path / "out"
    arguments = [str(videos[0]), "--encoder", str(folder), "--size-px", "16x24", "--fps", "2", "--clip-frames", "4"]
    assert main(["extract", *arguments, "--engine", "inline", "--gpus", "0", "--out", str(out)]) == 0
    assert main(["verify", str(out)]) == 0
    encoder = json.loads((out / "run.json").read_text())["encoder"]
    about = encoder["video_llm"]
    assert encoder["name"] == str(folder)
    assert encoder["architecture"] == "Qwen3VLModel"
    assert encoder["dim"] == 32 * (1 + 2)
    assert about["projection_probe"]
    known = {"family": "qwen3_vl", "stage": "projected", "merge_size": 2, "size_px": [16, 24], "size_from": "setting"}
    known |= {"tokens_per_row": 6, "source_tokens_per_s": 6.0, "deepstack": 2}
    assert {name: about[name] for name in known} == known
    assert TokenCache(out).run["encoder"]["video_llm"] == about
    assert TokenCache(out)[0].grid_thw == (2, 2, 3)


@pytest.mark.parametrize("family", ["qwen3_vl", "llava_onevision"])
def test_merged_tokens_are_means_of_whole_rows(
    family: str, checkpoints: dict[str, Path], videos: list[Path], tmp_path: Path
) -> None:
    """Deepstack features, which are further channels, are merged by the same plan."""
    size = {"size_px": "16x24"} if family in ANY_SIZE else {}
    same = {"clip_frames": 4, "dtype": "float32", **size}
    run(videos[:1], tmp_path / "all", tiny_recipe(checkpoints[family], strategy="none", keep=None, **same))
    run(videos[:1], tmp_path / "few", tiny_recipe(checkpoints[family], strategy="tree", keep=0.3, **same))
    assert verify(tmp_path / "few").problems == ()
    for whole, few in zip(TokenCache(tmp_path / "all"), TokenCache(tmp_path / "few"), strict=True):
        assert len(few.tokens) < len(whole.tokens)
        sums = torch.zeros(len(few.tokens), whole.tokens.shape[1]).index_add(0, few.group, whole.tokens)
        torch.testing.assert_close(few.tokens, sums / few.sizes[:, None], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "video_llama_3"])
def test_each_video_has_the_size_of_smart_resize(
    family: str, checkpoints: dict[str, Path], videos: list[Path], tmp_path: Path
) -> None:
    """By the family's own limits, 256 to 1536 px in these checkpoints; whichever worker decodes them."""
    run(videos, tmp_path / "a", tiny_recipe(checkpoints[family], clip_frames=4))
    assert verify(tmp_path / "a").problems == ()
    facts = json.loads((tmp_path / "a" / "run.json").read_text())
    assert facts["fingerprinted"]["picture"]["smart"] == {"factor_px": 8, "min_pixels": 256, "max_pixels": 1536}
    assert facts["encoder"]["video_llm"]["size_from"] == "smart resize"
    grids = {Path(clip.uri).name: clip.grid_thw[1:] for clip in TokenCache(tmp_path / "a")}
    sizes = {videos[0].name: (64, 96), videos[1].name: (48, 80)}
    expected = {name: their_smart_resize(*hw, 8, 256, 1536) for name, hw in sizes.items()}
    assert grids == {name: (height // 8, width // 8) for name, (height, width) in expected.items()}
    assert len(set(grids.values())) == 2
    run(videos, tmp_path / "b", tiny_recipe(checkpoints[family], clip_frames=4), unit_clips=1, workers=1)
    assert rows_of(tmp_path / "a") == rows_of(tmp_path / "b")


def test_qwen3_counts_the_pixels_of_all_frames(checkpoints: dict[str, Path]) -> None:
    geometry, _ = describe_video_llm(Recipe(encoder=str(checkpoints["qwen3_vl"]), clip_frames=5))
    assert geometry.smart == SmartSize(factor_px=8, min_pixels=256 // 6, max_pixels=1536 // 6)


def test_smart_resize_is_theirs() -> None:
    limits = SmartSize(factor_px=28, min_pixels=28 * 28 * 4, max_pixels=28 * 28 * 100)
    for height in range(29, 1300, 97):
        for width in range(31, 2000, 113):
            theirs = their_smart_resize(height, width, 28, limits.min_pixels, limits.max_pixels)
            assert smart_resize((height, width), limits) == theirs
    assert smart_resize((13, 2000), limits) == their_smart_resize(13, 2000, 28, limits.min_pixels, limits.max_pixels)
    # Theirs refuses the longer one.
    assert smart_resize((10, 4000), limits) == smart_resize((10, 2000), limits)


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def drop(folder: Path, part: str) -> None:
    path = folder / "model.safetensors"
    save_file({name: x for name, x in load_file(path).items() if part not in name}, path, metadata={"format": "pt"})


def widen(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("blocks.0.norm1.weight"))
    save_file(tensors | {name: torch.zeros(17)}, path, metadata={"format": "pt"})


def promise(folder: Path) -> None:
    """An index that places a tensor where it is not."""
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["visual.blocks.9.norm1.weight"] = index["weight_map"]["visual.blocks.0.norm1.weight"]
    path.write_text(json.dumps(index))


BROKEN: dict[str, tuple[str, Callable[[Path], object], list[str], str]] = {
    "a wrong prefix": (
        "qwen2_5_vl",
        lambda d: rename(d, lambda name: name.replace("visual.", "vision.")),
        [],
        "no tensor is of the vision part: expected visual.*, with or without 'model.' before them; it holds names such",
    ),
    "a missing tensor": ("qwen2_5_vl", lambda d: drop(d, "blocks.1.norm1"), [], "weights lack visual.blocks.1.norm1"),
    "a missing projection": (
        "internvl",
        lambda d: drop(d, "linear_2.weight"),
        [],
        "the weights lack multi_modal_projector.linear_2.weight, which the vision part needs",
    ),
    "another shape": (
        "qwen2_vl",
        widen,
        [],
        "visual.blocks.0.norm1.weight has the shape (17,), config.json says (16,)",
    ),
    "a tensor of no place": (
        "qwen3_vl",
        lambda d: rename(d, lambda name: name.replace("visual.pos_embed", "visual.places")),
        [],
        "weights lack visual.pos_embed.weight",
    ),
    "an index that promises too much": (
        "qwen2_vl",
        promise,
        [],
        "lacks the tensor 'visual.blocks.9.norm1.weight' that",
    ),
    "no size": ("qwen2_vl", Path.exists, ["--size-px", "336"], "--size-px 336 is no size: give HEIGHTxWIDTH"),
    "no multiple": ("qwen2_vl", Path.exists, ["--size-px", "20x24"], "both sides must be multiples of 8, .* try 16x24"),
    "a fixed tower": (
        "smolvlm",
        Path.exists,
        ["--size-px", "16x16"],
        "the vision tower of smolvlm takes 24x24 pixels and no others: leave it out",
    ),
    "a layer": ("qwen2_vl", Path.exists, ["--layer", "-2"], "--layer -2: of a video-LLM .* its language model reads"),
    "merging inside": ("qwen2_vl", Path.exists, ["--encoder-keep", "0.5"], "--encoder-keep 0.5: of a video-LLM"),
    "no preprocessor": (
        "internvl",
        lambda d: (d / "video_preprocessor_config.json").unlink(),
        [],
        "lacks preprocessor_config.json",
    ),
    "no square": (
        "internvl",
        lambda d: change_json(
            d / "config.json",
            vision_config=json.loads((d / "config.json").read_text())["vision_config"] | {"image_size": [24, 32]},
        ),
        [],
        "the vision tower takes .*24, 32.* px, expected a square",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_does_not_fit_is_one_line_and_exit_code_2(
    what: str, videos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    family, breaks, options, expected = BROKEN[what]
    folder = make_video_llm(family, tmp_path / "encoder", shards=6 if breaks is promise else 1)
    breaks(folder)
    capsys.readouterr()
    arguments = ["extract", str(videos[1]), "--encoder", str(folder), "--out", str(tmp_path / "out"), "--gpus", "0"]
    assert main([*arguments, "--engine", "inline", *options]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vtm: ")]
    assert len(lines) == 1
    assert all(part in lines[0] for part in expected.split(".*"))


TOWER_ENDS = {
    "llava_next_video": "vision_resampler",
    "llava_onevision": "multi_modal_projector",
    "smolvlm": "connector",
    "video_llama_3": "projector",
}
"""The modules that read the tower's output as it is."""


@pytest.mark.parametrize("family", MAKERS)
def test_the_towers_tokens_are_what_goes_into_merger_or_projector(family: str, checkpoints: dict[str, Path]) -> None:
    recipe = recipe_of(checkpoints[family], family)
    geometry, _ = describe_video_llm(recipe)
    frames = frames_of(geometry.image, 2)
    encoder = video_llm_features(recipe, 2, torch.float32, "cpu")
    model: Any = encoder._model
    end = "visual.merger" if family.startswith("qwen") else TOWER_ENDS.get(family, "vision_tower")
    seen: list[torch.Tensor] = []
    if end == "vision_tower":
        model.get_submodule(end).register_forward_hook(
            lambda _, __, output: seen.append(output.last_hidden_state[:, 1:])
        )
    else:
        model.get_submodule(end).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    encoder(frames)
    expected = torch.cat([part.reshape(-1, part.shape[-1]) for part in seen])
    if family.startswith("qwen"):
        # 16 x 24 px: 4 x 6 patches, of which the merger reads squares of 2 x 2 one after another.
        squares = torch.arange(24).reshape(2, 2, 3, 2).transpose(1, 2).flatten()
        if family == "qwen2_5_vl":
            # Windows of 2 x 2 squares: the left four of the 2 x 3, then the right two.
            squares = squares.reshape(6, 4)[[0, 1, 3, 4, 2, 5]].flatten()
        expected = torch.empty_like(expected).index_copy_(0, squares, expected)
    found = tokens_at(checkpoints[family], family, frames, stage="tower")
    rows, columns = (2, 3) if family == "video_llama_3" else (4, 6) if family in ANY_SIZE else found[0][1:]
    assert found[0][1:] == (rows, columns)
    torch.testing.assert_close(found[1], expected, rtol=1e-5, atol=1e-5)


def tokens_at(
    folder: Path, family: str, frames: NDArray[np.uint8], **settings: Any
) -> tuple[tuple[int, int, int], torch.Tensor]:
    features = video_llm_features(recipe_of(folder, family, **settings), 2, torch.float32, "cpu")(frames)
    return features.grid, features.patches_1KD[0]


def test_a_size_is_for_video_llms(tiny_encoder: Path, videos: list[Path], tmp_path: Path, capsys: Any) -> None:
    arguments = ["extract", str(videos[1]), "--encoder", str(tiny_encoder), "--size-px", "16x16"]
    assert main([*arguments, "--out", str(tmp_path / "out"), "--engine", "inline"]) == 2
    assert "--size-px 16x16 is for video-LLMs" in capsys.readouterr().err
    assert main([*arguments[:-2], "--stage", "tower", "--out", str(tmp_path / "out"), "--engine", "inline"]) == 2
    assert "--stage tower is for video-LLMs" in capsys.readouterr().err
    assert not is_video_llm(tiny_encoder)
