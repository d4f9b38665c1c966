from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from pipeline.encode.describe import describe_encoder
from pipeline.encode.devices import Device
from pipeline.errors import SettingsError
from pipeline.read_settings import build, load_toml, parse_fps
from pipeline.run_description import EncoderDescription, RunDescription
from pipeline.settings import Execution, Recipe


def described(recipe: Recipe, **changes: Any) -> RunDescription:
    known: dict[str, Any] = {"name": "e", "revision": None, "weights_sha256": "a", "dim": 7, "compute_dtype": "float32"}
    return RunDescription(recipe=recipe, encoder=EncoderDescription(**known | changes), picture={"patch_px": 7})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "magic"}, r"--strategy magic is unknown: choose one of none, naive"),
        ({"keep": 0.0}, r"--keep 0\.0 must be above 0 and at most 1"),
        ({"keep": 1.5}, r"--keep 1\.5 must be above 0 and at most 1"),
        ({"keep": 0.1, "tokens_per_clip": 9}, r"--keep and --tokens-per-clip cannot be used together"),
        ({"strategy": "none", "keep": 0.5}, r"--strategy none keeps every token"),
        ({"strategy": "learnable"}, r"--scorer DIR"),
        ({"tokens_per_clip": 0}, r"--tokens-per-clip 0 must be 1 or more"),
        ({"partition_factor": 1}, r"--partition-factor 1 must be 2 or more"),
        ({"encoder_keep": 0.5, "strategy": "motion"}, r"--encoder-keep 0\.5 merges patches inside"),
        ({"compile": True, "encoder_keep": 0.5}, r"--compile does not work with"),
        ({"compile": True, "reuse_levels": 2.0}, r"--compile does not work with"),
        ({"merge_share": 0.0}, r"--merge-share"),
        ({"merge_share": 0.5}, r"do not apply to --strategy tree"),
        ({"partition_factor": 6}, r"do not apply to --strategy tree"),
        ({"fidelity": 0.95, "keep": 0.1}, r"--keep and --fidelity cannot be used together"),
        ({"fidelity": 1.0}, r"--fidelity 1\.0 must be above 0 and below 1"),
        ({"fidelity": 0.9, "strategy": "naive"}, r"needs --strategy tree"),
        ({"weights": "colour"}, r"--weights colour is unknown"),
        ({"weights": "learnt"}, r"--scorer DIR .* goes together with --strategy learnable or with --weights learnt"),
        ({"weights": "motion", "strategy": "naive"}, r"--weights motion needs --strategy tree"),
        ({"weights": "motion", "encoder_keep": 0.5}, r"--weights motion needs the whole patch grid"),
        ({"max_gap_frames": -1}, r"--max-gap-frames -1 must be 0 or more"),
        ({"max_gap_frames": 1, "strategy": "coverage"}, r"--max-gap-frames needs --strategy tree"),
        ({"fps": Fraction(0)}, r"--fps 0 must be above 0"),
        ({"layer": 0}, r"--layer 0"),
        ({"decoder": "cuvid"}, r"--decoder cuvid is unknown: choose one of libav, nvdec"),
        (
            {"decoder": "nvdec", "resize": "pillow"},
            r"--resize pillow resizes on the CPU, and --decoder nvdec on the GPU",
        ),
        ({"decoder": "nvdec", "strategy": "motion"}, r"--decoder nvdec gives no motion vectors"),
        ({"decoder": "nvdec", "weights": "motion"}, r"--decoder nvdec gives no motion vectors"),
        ({"dtype": "float64"}, r"--dtype float64 is unknown"),
        ({"clip_frames": 0}, r"--clip-frames 0"),
    ],
)
def test_a_recipe_that_cannot_be_carried_out(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Recipe(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": ("csv",)}, r"--format csv is unknown: choose one of parquet, webdataset"),
        ({"format": ()}, r"--format needs"),
        ({"engine": "dask"}, r"--engine dask"),
        ({"workers": 0}, r"--workers 0 must be 1 or more"),
        ({"gpus": -1}, r"--gpus -1"),
        ({"unit_timeout_s": 0.0}, r"--unit-timeout-s"),
        ({"decode_memory_mb": 3}, r"--decode-memory-mb 3"),
    ],
)
def test_an_execution_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Execution(**settings)


def test_a_tenth_is_kept_where_nothing_is_said() -> None:
    assert Recipe().share_kept == 0.1
    assert Recipe(tokens_per_clip=5).share_kept is None
    assert Recipe(strategy="none").share_kept == 1.0


def test_the_fingerprint_covers_what_decides_bytes_and_nothing_else() -> None:
    plain = described(Recipe(encoder="a"))
    assert described(Recipe(encoder="b", keep=0.1)).fingerprint() == plain.fingerprint()
    assert described(Recipe(encoder="a"), name="z").fingerprint() == plain.fingerprint()
    different = [
        described(Recipe(keep=0.2)),
        described(Recipe(fps=Fraction(2))),
        described(Recipe(), batch_frames=7),
        described(Recipe(compile=True)),
        described(Recipe(), weights_sha256="b"),
        described(Recipe(), compute_dtype="bfloat16"),
        described(Recipe(), device="cuda"),
    ]
    assert len({run.fingerprint() for run in [plain, *different]}) == 8


def test_compiling_is_for_gpus(tiny_encoder: Path) -> None:
    with pytest.raises(SettingsError, match="--compile gains on GPUs alone"):
        describe_encoder(Recipe(encoder=str(tiny_encoder), compile=True), Device(kind="cpu"))
    description, _ = describe_encoder(
        Recipe(encoder=str(tiny_encoder), compile=True, compute_dtype="float32"), Device(kind="cuda")
    )
    assert description.dim == 24


def test_toml(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text('encoder = "x/y"\nfps = "30000/1001"\nunit-clips = 3\nformat = ["parquet", "webdataset"]\n')
    values = load_toml(path)
    assert build(Recipe, values).fps == Fraction(30000, 1001)
    assert build(Execution, values).unit_clips == 3
    assert build(Execution, values).format == ("parquet", "webdataset")


@pytest.mark.parametrize(
    ("text", "message"), [("kep = 0.1", "kep is not a setting: did you mean"), ("keep = ", "cannot be read as TOML")]
)
def test_a_bad_toml_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=message):
        load_toml(path)


@pytest.mark.parametrize("text", ["fast", "1/0", ""])
def test_a_rate_that_is_none(text: str) -> None:
    with pytest.raises(SettingsError, match="is not a frame rate"):
        parse_fps(text)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('layer = "9"', "layer = '9' has the wrong kind of value: write a whole number"),
        ('keep = "0.1"', "keep = '0.1' has the wrong kind of value: write a number"),
        ("clip-frames = true", "clip-frames = True has the wrong kind of value: write a whole number"),
        ("strategy = 3", "strategy = 3 has the wrong kind of value: write text"),
        ("inputs = [1]", "inputs = .1. has the wrong kind of value"),
        ("retry-failed = 1", "retry-failed = 1 has the wrong kind of value: write true or false"),
    ],
)
def test_a_recipe_with_a_value_of_the_wrong_kind(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "recipe.toml").write_text(line)
    with pytest.raises(SettingsError, match=message):
        load_toml(tmp_path / "recipe.toml")


def test_a_recipe_with_values_of_the_right_kind(tmp_path: Path) -> None:
    text = 'layer = 9\nkeep = 1\nfps = "1/2"\nformat = ["parquet"]\nretry-failed = true\nworkers = 2\nencoder = "x"\n'
    (tmp_path / "recipe.toml").write_text(text)
    assert load_toml(tmp_path / "recipe.toml")["layer"] == 9
