"""One loss for a run: exact, and better spent than one share for all clips."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jobs.cli import main
from pipeline import TokenCache
from pipeline.cache.run_budget import clip_losses, run_budgets
from pipeline.errors import RunFolderError, SettingsError
from tests.pipeline.runs import run, some_videos, tiny_recipe


@pytest.fixture(scope="module", params=["parquet", "webdataset"])
def out(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    folder = tmp_path_factory.mktemp("budget")
    recipe = tiny_recipe(tiny_encoder, strategy="tree", keep=0.5)
    run(some_videos(folder), folder / "out", recipe, format=(request.param,))
    return folder / "out"


def test_the_loss_leaves_the_tokens_asked_for(out: Path) -> None:
    clips = list(clip_losses(out))
    sources = sum(clip.num_sources for clip in clips)
    everything = np.sort(np.concatenate([clip.loss_M for clip in clips]))[::-1]
    for keep, budget in zip((0.4, 0.2, 0.1), run_budgets(out, keeps=(0.4, 0.2, 0.1)), strict=True):
        wanted = int(keep * sources)
        # Of equal losses in different clips either all merge or none does.
        assert budget.tokens == np.count_nonzero(everything > everything[wanted]) <= wanted
        assert budget.max_loss == everything[wanted]
        assert budget.mean_fidelity >= budget.same_share_fidelity - 1e-9
        assert budget.worst_fidelity <= budget.mean_fidelity
    (whole,) = run_budgets(out, tokens=(len(everything),))
    assert (whole.max_loss, whole.tokens) == (0.0, len(everything))


def test_no_other_way_to_spend_so_many_tokens_keeps_more(out: Path) -> None:
    """Against the best of all splits over clips, by taking the dearest merge that is left one at a time."""
    clips = list(clip_losses(out))
    (budget,) = run_budgets(out, keeps=(0.15,))
    left = [1] * len(clips)
    while sum(left) < budget.tokens:
        gains = [
            np.sort(clip.loss_M)[::-1][count] if count < len(clip.loss_M) else 0
            for clip, count in zip(clips, left, strict=True)
        ]
        left[int(np.argmax(gains))] += 1
    kept = sum(clip.fidelity_of(count) * clip.num_sources for clip, count in zip(clips, left, strict=True))
    assert budget.mean_fidelity == pytest.approx(kept / budget.sources, abs=1e-9)


def test_a_cache_takes_the_loss_as_it_is_printed(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["budget", str(out), "--keep", "0.2", "0.1", "--json"]) == 0
    for budget in json.loads(capsys.readouterr().out)["budgets"]:
        clips = list(TokenCache(out, max_loss=budget["max_loss"]))
        assert sum(len(clip.tokens) for clip in clips) == budget["tokens"]
        told = sum(clip.fidelity * len(clip.group) for clip in clips) / budget["sources"]
        assert told == pytest.approx(budget["mean_fidelity"], abs=1e-6)
    assert main(["budget", str(out), "--tokens", "60"]) == 0
    printed = capsys.readouterr().out.splitlines()[1].split()
    assert sum(len(clip.tokens) for clip in TokenCache(out, max_loss=float(printed[3]))) == int(printed[1]) <= 60


def test_what_cannot_be_had(out: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="2 tokens cannot be left of 11 clips"):
        run_budgets(out, tokens=(2,))
    with pytest.raises(SettingsError, match=r"--keep 1\.5"):
        run_budgets(out, keeps=(1.5,))
    run(some_videos(tmp_path)[2:], tmp_path / "out", tiny_recipe(tiny_encoder))
    with pytest.raises(RunFolderError, match="no merge trees"):
        run_budgets(tmp_path / "out", keeps=(0.1,))
