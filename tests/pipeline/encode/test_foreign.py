"""Encoders that `transformers` runs, from checkpoint to shard."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from jobs.cli import main
from pipeline import TokenCache
from pipeline.cache.preview import preview_clips
from pipeline.encode.clip_encoder import motion_on
from pipeline.encode.foreign import library
from pipeline.encode.foreign.describe import describe_foreign, foreign_features, is_foreign
from pipeline.encode.foreign.features import ForeignFeatures
from pipeline.encode.foreign.model import Geometry
from pipeline.settings import Recipe
from pipeline.verify import verify
from tests.pipeline.encode.foreign_checkpoints import BODY, MAKERS, VIDEO_FAMILIES, make_foreign
from tests.pipeline.runs import rows_of, run, some_videos, tiny_recipe
from vtm.encoders import EncoderError
from vtm.encoders.image import normalise
from vtm.encoders.threads import computing_alone

CLOSE = 1e-5
FRAMES = 7


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: make_foreign(family, tmp_path_factory.mktemp(family)) for family in MAKERS}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return some_videos(tmp_path_factory.mktemp("videos"))[1:]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other make small models slow."""
    with computing_alone():
        yield


def geometry_of(folder: Path, **settings: Any) -> Geometry:
    return describe_foreign(Recipe(encoder=str(folder), **settings)).geometry


def encoder_of(folder: Path, **settings: Any) -> ForeignFeatures:
    batch_frames = settings.pop("batch_frames", 20)
    return foreign_features(Recipe(encoder=str(folder), **settings), batch_frames, torch.float32, "cpu")


def frames_for(geometry: Geometry, count: int = FRAMES) -> NDArray[np.uint8]:
    size = (count, geometry.image.crop_height_px, geometry.image.crop_width_px, 3)
    return np.random.default_rng(11).integers(0, 256, size, dtype=np.uint8)


def reference(folder: Path, geometry: Geometry, frames: NDArray[np.uint8], state: int | None = None) -> torch.Tensor:
    """(T', H*W, D) by a plain call of `transformers`, its tokens picked out by family."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    model = getattr(model, "vision_model", model)
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
        if model.config.model_type in ("beit", "chinese_clip_vision_model", "data2vec-vision", "timesformer", "vivit"):
            x = x[:, 1:]
        places = geometry.layout.grid_hw[0] * geometry.layout.grid_hw[1]
        if model.config.model_type == "timesformer":
            x = x.unflatten(1, (places, -1)).transpose(1, 2)
        rows.append(x.reshape(-1, places, x.shape[-1]))
    tubelet = geometry.input.tubelet_frames
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


@pytest.mark.parametrize("family", ["beit", "data2vec", *VIDEO_FAMILIES])
def test_tokens_lie_where_their_pixels_are(family: str, checkpoints: dict[str, Path]) -> None:
    """Before any block, a change of one place changes the token of that place and no other far from it."""
    folder = checkpoints[family]
    geometry = geometry_of(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    given, layout = geometry.input, geometry.layout
    frames = frames_for(geometry, given.frames_per_pass)
    changed = frames.copy()
    row, place = given.rows_per_pass - 1, (1, layout.grid_hw[1] - 1)
    px = geometry.image.patch_px
    changed[row * given.tubelet_frames :, px : 2 * px, place[1] * px :] ^= 0xFF

    def embedded(pictures: NDArray[np.uint8]) -> torch.Tensor:
        pixels = normalise(pictures, geometry.image, torch.device("cpu"))
        with torch.no_grad():
            states = model(pixels[None] if given.is_video else pixels, output_hidden_states=True).hidden_states[0]
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
    encoder = encoder_of(folder, batch_frames=2)
    parts = [encoder(frames[i : i + length]) for i in range(0, count, length)]
    torch.set_num_threads(2)
    whole = encoder_of(folder, batch_frames=20)(frames)
    assert torch.equal(whole.patches_1KD, torch.cat([part.patches_1KD for part in parts], dim=1))
    assert whole.grid[0] == -(-count // geometry_of(folder).input.tubelet_frames)


@pytest.mark.parametrize("family", ["beit", "convnext", *VIDEO_FAMILIES])
def test_runs(family: str, videos: list[Path], checkpoints: dict[str, Path], tmp_path: Path) -> None:
    recipe = tiny_recipe(checkpoints[family], clip_frames=5, layer=1)
    run(videos, tmp_path / "a", recipe)
    assert verify(tmp_path / "a").problems == ()
    described = json.loads((tmp_path / "a" / "run.json").read_text())["encoder"]
    for clip in TokenCache(tmp_path / "a"):
        tubelet_frames = clip.tubelet_frames
        assert (
            tubelet_frames == described["tubelet_frames"] == (1 if family in ("beit", "convnext", "timesformer") else 2)
        )
        assert clip.grid_thw[0] == len(clip.row_time_ns) == -(-len(clip.frame_time_ns) // tubelet_frames)
        assert len(clip.tokens) == -(-len(clip.group) // 5)
        assert clip.centers[:, 0].max() <= clip.grid_thw[0] - 1
    run(videos, tmp_path / "b", recipe, unit_clips=1, workers=1)
    assert rows_of(tmp_path / "a") == rows_of(tmp_path / "b")


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def drop_tensor(folder: Path, part: str) -> None:
    path = folder / "model.safetensors"
    save_file({name: x for name, x in load_file(path).items() if part not in name}, path, metadata={"format": "pt"})


def no_grid(folder: Path) -> None:
    transformers.ViTMAEConfig(**BODY, image_size=35, patch_size=7).save_pretrained(folder)


def only_a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


BROKEN: dict[str, tuple[str, Callable[[Path], object], list[str], str]] = {
    "merging inside": ("beit", Path.exists, ["--encoder-keep", "0.5"], "--encoder-keep 0.5 merges inside our own"),
    "reuse": ("beit", Path.exists, ["--reuse-levels", "2"], "--reuse-levels 2.0 encodes single patches with our own"),
    "saliency": ("beit", Path.exists, ["--strategy", "saliency"], "--strategy saliency reads the attention"),
    "no such layer": ("vjepa2", Path.exists, ["--layer", "3"], "layer 3: expected 1 to 2, or -1 (the last) down to -2"),
    "a tensor missing": (
        "beit",
        lambda d: drop_tensor(d, "layer.1.layernorm"),
        [],
        "and 3 more tensors, which the features need",
    ),
    "a tensor of another shape": (
        "videomae",
        lambda d: change_json(d / "config.json", intermediate_size=41),
        [],
        "the weights cannot be loaded",
    ),
    "a pickle": ("beit", only_a_pickle, [], "pickles are not opened"),
    "an unknown family": (
        "beit",
        lambda d: change_json(d / "config.json", model_type="mine", auto_map={"AutoModel": "mine.Model"}),
        [],
        "known neither here nor to transformers",
    ),
    "no grid": ("beit", no_grid, [], "no grid of patches"),
    "half a tubelet": ("videomae", lambda d: change_json(d / "config.json", num_frames=5), [], "5 is no multiple of"),
    "an unknown processor": (
        "beit",
        lambda d: change_json(d / "preprocessor_config.json", image_processor_type="MyImageProcessor"),
        [],
        "names MyImageProcessor, which transformers does not have",
    ),
    "a processor that does more": (
        "beit",
        lambda d: change_json(d / "preprocessor_config.json", image_processor_type="EfficientNetImageProcessor"),
        [],
        "does more to a picture than to resize, crop, rescale and normalise it",
    ),
    "a text model": (
        "beit",
        lambda d: change_json(d / "config.json", model_type="bert"),
        [],
        "BertModel cannot take 1 x 35 x 35 px",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_does_not_fit_is_one_line_and_exit_code_2(
    what: str, videos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    family, breaks, options, expected = BROKEN[what]
    folder = make_foreign(family, tmp_path / "encoder")
    breaks(folder)
    capsys.readouterr()
    arguments = ["extract", str(videos[0]), "--encoder", str(folder), "--out", str(tmp_path / "out"), "--gpus", "0"]
    assert main([*arguments, "--engine", "inline", *options]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith("vtm: ")]) == 1
    assert expected in lines[-1]
    assert len(lines) <= 2  # the other says who runs the encoder


def test_without_transformers_the_error_says_what_to_install(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "is_installed", lambda: False)
    with pytest.raises(
        EncoderError, match=r"model_type 'beit' is not known.*pip install 'vtm-pipeline\[transformers\]'"
    ):
        is_foreign(checkpoints["beit"])


def test_our_own_comes_first(tiny_encoder: Path, checkpoints: dict[str, Path]) -> None:
    assert not is_foreign(tiny_encoder)
    assert is_foreign(checkpoints["beit"])


def test_a_tensor_that_the_features_do_not_read_may_be_missing(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folder = make_foreign("vjepa2", tmp_path)
    drop_tensor(folder, "predictor.")
    frames = frames_for(geometry_of(folder), 4)
    assert torch.equal(encoder_of(folder)(frames).patches_1KD, encoder_of(checkpoints["vjepa2"])(frames).patches_1KD)


def test_the_run_says_who_runs_the_encoder(
    checkpoints: dict[str, Path], videos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(videos[1]), "--encoder", str(checkpoints["videomae"]), "--clip-frames", "5"]
    out = tmp_path / "out"
    assert (
        main(["extract", *arguments, "--gpus", "0", "--strategy", "motion", "--out", str(out), "--engine", "inline"])
        == 0
    )
    assert "run by transformers (VideoMAEModel), merged after it" in capsys.readouterr().err
    assert main(["verify", str(out)]) == main(["inspect", str(out)]) == main(["report", str(out)]) == 0
    assert "run by transformers (VideoMAEModel, 2 frames a token)" in capsys.readouterr().out
    assert main(["plan", *arguments, "--strategy", "none", "--json"]) == 0
    (planned,) = json.loads(capsys.readouterr().out)["videos"]
    assert planned["tokens"] == sum(len(clip.group) for clip in TokenCache(out))
    assert json.loads((out / "run.json").read_text())["versions"]["transformers"] == transformers.__version__


def test_a_preview_shows_the_first_frame_of_each_tubelet(
    checkpoints: dict[str, Path], videos: list[Path], tmp_path: Path
) -> None:
    run(videos[:1], tmp_path / "out", tiny_recipe(checkpoints["videomae"], clip_frames=7))
    preview = next(preview_clips(tmp_path / "out", 1, 3))
    rows = preview.clip.grid_thw[0]
    assert preview.shown == tuple(
        2 * row for row in np.unique(np.linspace(0, rows - 1, min(3, rows)).round().astype(int))
    )
    assert preview.frames is not None
    assert len(preview.frames) == len(preview.group) == len(preview.shown)


def test_verification_knows_the_tubelet(checkpoints: dict[str, Path], videos: list[Path], tmp_path: Path) -> None:
    run(videos[1:], tmp_path / "out", tiny_recipe(checkpoints["videomae"]))
    assert verify(tmp_path / "out").is_sound
    run_file = tmp_path / "out" / "run.json"
    facts = json.loads(run_file.read_text())
    facts["encoder"]["tubelet_frames"] = 1
    run_file.write_text(json.dumps(facts))
    assert "T is not the number of frames over 1" in verify(tmp_path / "out").problems[0]


def test_motion_is_the_mean_of_what_a_patch_covers() -> None:
    motion = np.arange(5 * 4 * 6, dtype=np.float32).reshape(5, 4, 6)
    pooled = motion_on((3, 2, 3), motion, 2)[0]
    expected = [
        motion[t : t + 2, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean()
        for t, y, x in np.ndindex(3, 2, 3)
        for t in [2 * t]
    ]
    np.testing.assert_allclose(pooled.numpy().ravel(), expected, rtol=1e-6)
    assert torch.equal(motion_on((5, 4, 6), motion, 1)[0], torch.from_numpy(motion))


@pytest.mark.usefixtures("local_ray")
@pytest.mark.filterwarnings("ignore")
def test_ray_gives_the_same_bytes(checkpoints: dict[str, Path], videos: list[Path], tmp_path: Path) -> None:
    recipe = tiny_recipe(checkpoints["vjepa2"], strategy="coverage", clip_frames=5)
    run(videos, tmp_path / "inline", recipe)
    run(videos, tmp_path / "ray", recipe, engine="ray", unit_clips=1)
    assert rows_of(tmp_path / "ray") == rows_of(tmp_path / "inline")
    assert verify(tmp_path / "ray").is_sound


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["beit", "vjepa2"])
def test_a_gpu_gives_the_same_bytes_however_frames_are_grouped(
    family: str, cuda: torch.device, checkpoints: dict[str, Path]
) -> None:
    geometry = geometry_of(checkpoints[family])
    frames, length = frames_for(geometry, 13), geometry.input.frames_per_pass
    encoder = foreign_features(Recipe(encoder=str(checkpoints[family])), 12, torch.float32, str(cuda))
    parts = [encoder(frames[i : i + length]).patches_1KD for i in range(0, len(frames), length)]
    assert torch.equal(encoder(frames).patches_1KD, torch.cat(parts, dim=1))
