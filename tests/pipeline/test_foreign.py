"""Encoders that `transformers` runs, from checkpoint to shard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray

from pipeline import TokenCache
from pipeline.foreign.describe import describe_foreign, foreign_features
from pipeline.foreign.features import ForeignFeatures
from pipeline.foreign.model import Geometry
from pipeline.settings import Recipe
from pipeline.verify import verify
from tests.pipeline.foreign_checkpoints import MAKERS, VIDEO_FAMILIES, make_foreign
from tests.pipeline.runs import rows_of, run, some_videos, tiny_recipe
from vtm.encoders.image import normalise

CLOSE = 1e-5
FRAMES = 7


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: make_foreign(family, tmp_path_factory.mktemp(family)) for family in MAKERS}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return some_videos(tmp_path_factory.mktemp("videos"))[1:]


def geometry_of(folder: Path, **settings: Any) -> Geometry:
    return describe_foreign(Recipe(encoder=str(folder), **settings)).geometry


def encoder_of(folder: Path, **settings: Any) -> ForeignFeatures:
    return foreign_features(Recipe(encoder=str(folder), **settings), torch.float32, "cpu")


def frames_for(geometry: Geometry, count: int = FRAMES) -> NDArray[np.uint8]:
    size = (count, geometry.image.crop_height_px, geometry.image.crop_width_px, 3)
    return np.random.default_rng(11).integers(0, 256, size, dtype=np.uint8)


def reference(folder: Path, geometry: Geometry, frames: NDArray[np.uint8], state: int | None = None) -> torch.Tensor:
    """(T', H*W, D) by a plain call of `transformers`, its tokens picked out by family."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    pixels = normalise(frames, geometry.image, torch.device("cpu"))
    length = geometry.input.frames_per_pass
    rows = []
    for start in range(0, len(frames), length):
        part = pixels[start : start + length]
        part = torch.cat([part, part[-1:].expand(length - len(part), -1, -1, -1)])
        with torch.no_grad():
            output = model(part[None] if geometry.input.is_video else part, output_hidden_states=True)
        x = output.last_hidden_state if state is None else output.hidden_states[state]
        if x.ndim == 4:
            x = x.flatten(2).mT
        if model.config.model_type in ("beit", "data2vec-vision", "timesformer", "vivit"):
            x = x[:, 1:]
        places = geometry.layout.grid_hw[0] * geometry.layout.grid_hw[1]
        if model.config.model_type == "timesformer":
            x = x.unflatten(1, (places, -1)).transpose(1, 2)
        rows.append(x.reshape(-1, places, x.shape[-1]))
    tubelet = geometry.input.frames_per_token_row
    return torch.cat(rows)[: -(-len(frames) // tubelet)]


@pytest.mark.parametrize("family", MAKERS)
def test_features_are_those_of_transformers(family: str, checkpoints: dict[str, Path]) -> None:
    folder = checkpoints[family]
    geometry = geometry_of(folder)
    frames = frames_for(geometry)
    features = encoder_of(folder)(frames)
    expected = reference(folder, geometry, frames)
    assert features.grid == (len(expected), *geometry.layout.grid_hw)
    found = features.patches_1KD[0].reshape(expected.shape)
    torch.testing.assert_close(found, expected, rtol=CLOSE, atol=CLOSE * float(expected.abs().max()))


@pytest.mark.parametrize("family", MAKERS)
def test_tokens_lie_where_their_pixels_are(family: str, checkpoints: dict[str, Path]) -> None:
    """Before any block, a change of one place changes the token of that place and no other far from it."""
    folder = checkpoints[family]
    geometry = geometry_of(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    given, layout = geometry.input, geometry.layout
    if not given.is_video and layout.kind != "tokens":
        pytest.skip("a map says itself where its places are")
    frames = frames_for(geometry, given.frames_per_pass)
    changed = frames.copy()
    row, place = given.rows_per_pass - 1, (1, layout.grid_hw[1] - 1)
    px = geometry.image.patch_px
    changed[row * given.frames_per_token_row :, px : 2 * px, place[1] * px :] ^= 0xFF

    def embedded(pictures: NDArray[np.uint8]) -> torch.Tensor:
        pixels = normalise(pictures, geometry.image, torch.device("cpu"))
        with torch.no_grad():
            states = model(pixels[None] if given.is_video else pixels, output_hidden_states=True).hidden_states[0]
        if states.shape[1] > 2 * layout.prefix + given.rows_per_pass * layout.grid_hw[0] * layout.grid_hw[1]:
            pytest.skip("the first stage of a pyramid has another grid")
        return layout.patches(states)[0]

    moved = (embedded(frames) != embedded(changed)).any(dim=-1)
    expected = torch.zeros_like(moved)
    expected[row, place[0] * layout.grid_hw[1] + place[1]] = True
    assert torch.equal(moved, expected)


@pytest.mark.parametrize(("family", "state"), [("beit", 1), ("convnext", 2), ("vjepa2", 1)])
def test_an_earlier_layer(family: str, state: int, checkpoints: dict[str, Path]) -> None:
    folder = checkpoints[family]
    last = len(MAKERS[family]()[0].config.depths) if family == "convnext" else 2
    for layer in (state, state - last - 1):
        geometry = geometry_of(folder, layer=layer)
        frames = frames_for(geometry)
        expected = reference(folder, geometry, frames, state)
        found = encoder_of(folder, layer=layer)(frames).patches_1KD[0].reshape(expected.shape)
        torch.testing.assert_close(found, expected, rtol=CLOSE, atol=CLOSE * float(expected.abs().max()))
    assert geometry_of(folder, layer=last) == geometry_of(folder)


@pytest.mark.parametrize("family", ["beit", "vjepa2"])
@pytest.mark.parametrize("count", [1, 5, 6, 13])
def test_bytes_do_not_depend_on_grouping_or_threads(family: str, count: int, checkpoints: dict[str, Path]) -> None:
    folder = checkpoints[family]
    frames = frames_for(geometry_of(folder), count)
    length = geometry_of(folder).input.frames_per_pass
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        whole = encoder_of(folder, batch_frames=20)(frames)
        torch.set_num_threads(1)
        parts = [encoder_of(folder, batch_frames=2)(frames[i : i + length]) for i in range(0, count, length)]
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(whole.patches_1KD, torch.cat([part.patches_1KD for part in parts], dim=1))
    assert whole.grid[0] == -(-count // geometry_of(folder).input.frames_per_token_row)


@pytest.mark.parametrize("family", ["beit", "convnext", *VIDEO_FAMILIES])
def test_runs(family: str, videos: list[Path], checkpoints: dict[str, Path], tmp_path: Path) -> None:
    recipe = tiny_recipe(checkpoints[family], clip_frames=5, layer=1)
    run(videos, tmp_path / "a", recipe)
    assert verify(tmp_path / "a").problems == ()
    described = json.loads((tmp_path / "a" / "run.json").read_text())["encoder"]
    for clip in TokenCache(tmp_path / "a"):
        per_row = clip.frames_per_token_row
        assert (
            per_row == described["frames_per_token_row"] == (1 if family in ("beit", "convnext", "timesformer") else 2)
        )
        assert clip.grid_thw[0] == len(clip.row_time_ns) == -(-len(clip.frame_time_ns) // per_row)
        assert len(clip.tokens) == -(-len(clip.group) // 5)
        assert clip.centers[:, 0].max() <= clip.grid_thw[0] - 1
    run(videos, tmp_path / "b", recipe, unit_clips=1, workers=1)
    assert rows_of(tmp_path / "a") == rows_of(tmp_path / "b")
