"""Recipes with a [cluster] table, and the recipes that this project ships."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from jobs.cli import main
from jobs.cluster.cluster_job import load_job
from pipeline import TokenCache
from tests.pipeline.runs import some_videos

RECIPES = sorted((Path(__file__).resolve().parents[3] / "jobs" / "recipes").glob("*.toml"))
SMALL = ["--layer", "-1", "--fps", "2", "--clip-frames", "3", "--batch-frames", "2", "--gpus", "0", "--workers", "1"]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_extracts(recipe: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    (video, *_) = some_videos(tmp_path)
    command = ["extract", str(video), "--config", str(recipe), "--encoder", str(tiny_encoder), *SMALL]
    command += ["--engine", "inline", "--compute-dtype", "float32"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    assert len(TokenCache(tmp_path / "out")) > 1
    assert main(["verify", str(tmp_path / "out")]) == 0


def test_there_are_recipes_for_a_laptop_a_node_and_a_cluster() -> None:
    assert [path.stem for path in RECIPES] == ["cluster", "gpu_node", "laptop"]


def test_local_paths_become_absolute_and_addresses_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "films").mkdir()
    text = 'inputs = ["films", "s3://b/films"]\nout = "s3://b/out"\nencoder = "google/siglip2-base-patch16-224"\n'
    (tmp_path / "My Recipe_2.toml").write_text(text)
    job = load_job(tmp_path / "My Recipe_2.toml")
    assert job.name == "vtm-my-recipe-2"
    assert job.arguments("r.toml") == ["extract", f"{tmp_path}/films", "s3://b/films", "--config", "r.toml"]
    (tmp_path / "r.toml").write_text('inputs = "films"\nout = "out"\nencoder = "./vit"\n')
    words = load_job(tmp_path / "r.toml").arguments("r.toml")
    assert words[-4:] == ["--encoder", f"{tmp_path}/vit", "--out", f"{tmp_path}/out"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "inputs is missing"),
        ("gpu_node = 2", "[cluster] gpu_node is not a setting: did you mean gpu_nodes?"),
        ('gpu_nodes = "two"', "[cluster] gpu_nodes = 'two' has the wrong type: write a whole number"),
        ("gpu_nodes = -1", "[cluster] gpu_nodes = -1 must be 0 or more"),
        ("hours = 1", "[cluster] has no nodes"),
    ],
)
def test_a_bad_cluster_table_is_one_line(
    text: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = 'inputs = ["s3://b/in"]\nout = "s3://b/out"\n' if text else ""
    (tmp_path / "r.toml").write_text(f'{head}[cluster]\nimage = "an/image"\n{text}\n')
    for system in ("kuberay", "slurm"):
        assert main(["submit", str(tmp_path / "r.toml"), "--to", system]) == 2
        captured = capsys.readouterr()
        assert expected in captured.err
        assert len(captured.err.splitlines()) == 1
        assert not captured.out


@pytest.mark.parametrize(
    "arguments",
    [[], ["r.toml", "--status", "job"], ["--to", "slurm", "--stop", "job"], ["--stop", "a", "--status", "b"]],
)
def test_contradicting_arguments_are_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", *arguments]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_address_where_nothing_answers_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("aiohttp_cors", reason="the extra `cluster` is not installed")
    recipe = shutil.copy(RECIPES[0], tmp_path)
    assert main(["submit", str(recipe), "--address", "http://127.0.0.1:9"]) == 2
    assert "--address http://127.0.0.1:9 cannot be reached" in capsys.readouterr().err


def test_the_address_of_a_cluster_instead_of_its_dashboard_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "--status", "x", "--address", "head:6379"]) == 2
    assert "--address head:6379 is no address of a Ray dashboard" in capsys.readouterr().err
