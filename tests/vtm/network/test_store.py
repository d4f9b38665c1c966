from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vtm.network import (
    NetworkError,
    SaliencyScorer,
    ScorerConfig,
    VideoTokenMerging,
    load_network,
    load_scorer,
    save_model,
    stored_kind,
)

GRID = (2, 3, 5)


@pytest.fixture
def scorer_folder(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    save_model(tmp_path / "scorer", SaliencyScorer(ScorerConfig(in_width=11, key_width=7, reads="keys")))
    return tmp_path / "scorer"


def test_saved_scorer_scores_the_same(scorer_folder: Path) -> None:
    torch.manual_seed(1)
    fresh, again = SaliencyScorer(ScorerConfig(in_width=11, key_width=7, reads="keys")), load_scorer(scorer_folder)
    x = torch.randn(2, 30, 11)
    assert torch.equal(fresh(x, GRID), again(x, GRID))
    assert (again.reads, stored_kind(scorer_folder)) == ("keys", "scorer")


def test_scorer_of_a_network_is_its_first_block(make_network: Callable[..., VideoTokenMerging], tmp_path: Path) -> None:
    network = make_network().float()
    save_model(tmp_path, network)
    x = torch.randn(2, 30, 11)
    scorer = load_scorer(tmp_path)
    torch.testing.assert_close(scorer(x, GRID), network.saliency(x), rtol=0, atol=1e-6)
    assert scorer(x.half(), GRID).dtype == torch.float32
    torch.testing.assert_close(scorer.weights(x, GRID), torch.exp(3.0 * network.saliency(x)), rtol=1e-5, atol=0)
    assert (scorer.reads, stored_kind(tmp_path)) == ("patches", "network")


def test_network_without_a_scorer_says_so(make_network: Callable[..., VideoTokenMerging], tmp_path: Path) -> None:
    save_model(tmp_path, make_network(strategy="naive"))
    with pytest.raises(NetworkError, match="strategy is naive"):
        load_scorer(tmp_path)


def test_scorer_is_no_network(scorer_folder: Path) -> None:
    with pytest.raises(NetworkError, match="holds a scorer, not a network"):
        load_network(scorer_folder)


def test_unusable_folders_are_named(scorer_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="holds no trained network"):
        load_scorer(tmp_path / "nothing")
    config = scorer_folder / "config.json"
    record = json.loads(config.read_text())
    for changed, message in (
        ({**record, "kind": "poem"}, "kind 'poem'"),
        ({**record, "config": {**record["config"], "colour": 1}}, "does not know: colour"),
        ({**record, "config": {**record["config"], "key_width": 8}}, "does not fit the config.json beside it"),
        ({"config": {}}, "no config of a network"),
    ):
        config.write_text(json.dumps(changed))
        with pytest.raises(NetworkError, match=message):
            load_scorer(scorer_folder)


def test_scorer_names_a_wrong_width(scorer_folder: Path) -> None:
    with pytest.raises(NetworkError, match=r"reads keys of shape \(B, 30, 11\), got \(2, 30, 12\)"):
        load_scorer(scorer_folder)(torch.zeros(2, 30, 12), GRID)
