from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from vtm.network import NetworkError, VideoTokenMerging, load_network, save_model, tokens_left
from vtm.network.block import Windows
from vtm.network.network import SEED_STRIDE
from vtm.network.targets import area_cue
from vtm.plan import MergePlan, identity_plan
from vtm.sampling import gumbel_noise

Make = Callable[..., VideoTokenMerging]
GRID = (7, 3, 5)
TOKENS = 7 * 3 * 5
STRATEGIES = ["naive", "center", "boundary", "motion", "learnable", "weighted"]
ROUNDING = 1e-12


def patches(batch: int = 2, tokens: int = TOKENS) -> torch.Tensor:
    generator = torch.Generator().manual_seed(11)
    return torch.randn(batch, tokens, 11, generator=generator, dtype=torch.float64)


def motion_for(strategy: str) -> torch.Tensor | None:
    return patches()[..., 0].abs() if strategy == "motion" else None


def test_windows_of_a_clip_do_not_see_each_other(make_network: Make) -> None:
    network, x = make_network(strategy="none", windows_frames=(2, 2, 2)), patches()
    whole = network(x, GRID).tokens
    for first, last in ((0, 2), (2, 4), (4, 6), (6, 7)):
        mine = slice(first * 15, last * 15)
        alone = network(x[:, mine], (last - first, 3, 5)).tokens
        torch.testing.assert_close(whole[:, mine], alone, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_network_is_its_blocks_run_window_by_window(make_network: Make, strategy: str) -> None:
    """Seven frames in windows of 1, 3 and 6 leave a shorter last window in two of the blocks."""
    network, x = make_network(strategy=strategy), patches(batch=1)
    motion = None if strategy != "motion" else x[..., 0].abs()
    with torch.no_grad():
        out = network(x, GRID, seeds=[5], motion=motion)
        expected, log_mass = _blocks_by_hand(network, x, motion)
    torch.testing.assert_close(out.tokens, expected, rtol=0, atol=ROUNDING)
    pooled = expected.mean(dim=1) if strategy != "weighted" else log_mass.softmax(dim=1) @ expected[0]
    torch.testing.assert_close(out.prediction, network.head(pooled), rtol=0, atol=ROUNDING)


def _blocks_by_hand(
    network: VideoTokenMerging, x: torch.Tensor, motion: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and, of `weighted`, their log masses."""
    frames_of_token = torch.arange(TOKENS) // 15
    plan, log_mass = identity_plan(1, TOKENS), x.new_zeros(1, TOKENS)
    for index, (block, frames) in enumerate(zip(network.blocks, network.config.windows_frames, strict=True)):
        area = "boundary" if network.config.strategy == "boundary" else "center"
        cue = area_cue(area, plan, GRID) if motion is None else motion
        cue = log_mass if network.config.strategy == "weighted" else cue
        noise = gumbel_noise([5 * SEED_STRIDE + index], x.shape[1], x.device)
        outs, moved, origins, masses = [], [], [], []
        for first in range(0, 7, frames):
            mine = torch.nonzero((frames_of_token >= first) & (frames_of_token < first + frames)).flatten()
            part = block(Windows(x[:, mine], cue[:, mine], noise[:, mine]))
            outs.append(part.x)
            moved.append(part.plan.mean(cue[:, mine, None]).squeeze(2))
            origins.append(mine[part.plan.targets[0]])
            masses.append(part.log_mass)
        origin = torch.cat(origins)
        plan = MergePlan(plan.group, len(origin), plan.targets[:, origin])
        frames_of_token = frames_of_token[origin]
        x, motion = torch.cat(outs, dim=1), None if motion is None else torch.cat(moved, dim=1)
        if network.config.strategy == "weighted":
            log_mass = torch.cat(masses, dim=1)
    return x, log_mass


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_plan_refers_to_the_source_patches(make_network: Make, strategy: str) -> None:
    out = make_network(strategy=strategy)(patches(), GRID, motion=motion_for(strategy))
    assert out.plan.num_groups == out.tokens.shape[1] < TOKENS
    assert out.plan.group.shape == (2, TOKENS)
    assert out.plan.sizes.sum(dim=1).tolist() == [TOKENS, TOKENS]
    assert out.plan.sizes.min() >= 1
    assert torch.equal(out.plan.group.gather(1, out.plan.targets), torch.arange(out.plan.num_groups).expand(2, -1))
    assert (out.plan.targets.diff(dim=1) > 0).all()


def test_baseline_keeps_every_patch(make_network: Make) -> None:
    out = make_network(strategy="none")(patches(), GRID)
    assert torch.equal(out.plan.group, torch.arange(TOKENS).expand(2, -1))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_clips_of_a_batch_are_independent(make_network: Make, strategy: str) -> None:
    network, x, motion = make_network(strategy=strategy), patches(), motion_for(strategy)
    both = network(x, GRID, seeds=[3, 9], motion=motion)
    second = network(x[1:], GRID, seeds=[9], motion=None if motion is None else motion[1:])
    assert torch.equal(both.plan.group[1:], second.plan.group)
    torch.testing.assert_close(both.prediction[1:], second.prediction, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("strategy", ["motion", "learnable"])
def test_seed_decides_the_sampled_merge(make_network: Make, strategy: str) -> None:
    network, x, motion = make_network(strategy=strategy), patches(), motion_for(strategy)
    first, again, other = (
        network(x, GRID, seeds=seeds, motion=motion).plan.group for seeds in ([1, 2], [1, 2], [1, 3])
    )
    assert torch.equal(first, again)
    assert torch.equal(first[0], other[0])
    assert not torch.equal(first[1], other[1])


def test_plain_and_fused_attention_agree(make_network: Make) -> None:
    plain = make_network(attention="plain")(patches(), GRID)
    fused = make_network(attention="fused")(patches(), GRID)
    assert torch.equal(plain.plan.group, fused.plan.group)
    torch.testing.assert_close(plain.tokens, fused.tokens, rtol=0, atol=ROUNDING)


def test_windows_taken_together_or_one_by_one_agree(make_network: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = make_network(), patches()
    with torch.no_grad():
        together = network(x, GRID)
        monkeypatch.setattr("vtm.network.network.WINDOW_BYTES", {"cpu": 1, "cuda": 1})
        one_by_one = network(x, GRID)
    assert torch.equal(together.plan.group, one_by_one.plan.group)
    torch.testing.assert_close(together.prediction, one_by_one.prediction, rtol=0, atol=ROUNDING)


AUXILIARIES = [("attention", 1), ("pooling", 3)]


@pytest.mark.parametrize(("auxiliary", "count"), AUXILIARIES)
def test_auxiliary_predictions_are_for_training_only_and_change_no_prediction(
    make_network: Make, auxiliary: str, count: int
) -> None:
    network, x = make_network(dropout=0.0, auxiliary=auxiliary), patches()
    inference = network(x, GRID)
    training = network.train()(x, GRID)
    assert inference.auxiliary == ()
    assert len(training.auxiliary) == count
    assert all(prediction.shape == training.prediction.shape for prediction in training.auxiliary)
    assert torch.equal(inference.plan.group, training.plan.group)
    assert torch.equal(inference.prediction, training.prediction)


def test_network_without_an_auxiliary_head_predicts_the_same(make_network: Make) -> None:
    network, x = make_network(), patches()
    expected = network(x, GRID).prediction
    network.auxiliary_head = None
    assert torch.equal(network(x, GRID).prediction, expected)


@pytest.mark.parametrize(("auxiliary", "count"), AUXILIARIES)
def test_scorers_learn_from_the_auxiliary_loss_alone(make_network: Make, auxiliary: str, count: int) -> None:
    network = make_network(dropout=0.0, auxiliary=auxiliary).train()
    scorers = [block.to_saliency.weight for block in network.blocks]
    out = network(patches(), GRID)
    through_main = torch.autograd.grad(out.prediction.square().sum(), scorers, retain_graph=True, allow_unused=True)
    loss = torch.stack([prediction.square().sum() for prediction in out.auxiliary]).sum()
    through_auxiliary = torch.autograd.grad(loss, scorers)
    assert through_main == (None, None, None)
    assert all(gradient.abs().max() > 0 for gradient in through_auxiliary)


@pytest.mark.parametrize("strategy", ["none", *STRATEGIES])
def test_saved_network_predicts_the_same(make_network: Make, tmp_path: object, strategy: str) -> None:
    network, x, motion = make_network(strategy=strategy), patches().float(), motion_for(strategy)
    network, motion = network.float(), None if motion is None else motion.float()
    save_model(tmp_path / "net", network)
    again = load_network(tmp_path / "net")
    assert again.config == network.config
    assert torch.equal(again(x, GRID, motion=motion).prediction, network(x, GRID, motion=motion).prediction)


@pytest.mark.parametrize("strategy", ["naive", "center"])
def test_network_compiles_as_one_graph(make_network: Make, strategy: str) -> None:
    network, x = make_network(strategy=strategy, attention="fused", widths=(9, 5), windows_frames=(1, 7)), patches()
    torch.compiler.reset()
    with torch.no_grad():
        compiled = torch.compile(network, fullgraph=True, backend="eager")(x, GRID)
        expected = network(x, GRID)
    assert torch.equal(compiled.plan.group, expected.plan.group)
    torch.testing.assert_close(compiled.prediction, expected.prediction, rtol=0, atol=ROUNDING)


def test_learnable_network_compiles_once_for_all_seeds(make_network: Make) -> None:
    network, x = make_network(attention="fused", widths=(9, 5), windows_frames=(1, 7)), patches()
    torch.compiler.reset()
    compiled = torch.compile(network, backend="eager")
    with torch.no_grad():
        for seeds in ([1, 2], [3, 1 << 40], [5, 6]):
            got, expected = compiled(x, GRID, seeds=seeds), network(x, GRID, seeds=seeds)
            assert torch.equal(got.plan.group, expected.plan.group)
            torch.testing.assert_close(got.prediction, expected.prediction, rtol=0, atol=ROUNDING)
        with torch.compiler.set_stance("fail_on_recompile"):
            compiled(x, GRID, seeds=[7, 8])


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({}, {"grid": (7, 3, 4)}, r"shape \(B, 84, 11\), got \(2, 105, 11\)"),
        ({}, {"grid": (0, 3, 5)}, "at least one frame, row and column"),
        ({}, {"seeds": [1]}, "one seed a clip, got 1 for 2"),
        ({"strategy": "motion"}, {}, "motion takes the motion"),
        ({"strategy": "naive"}, {"motion": torch.zeros(2, TOKENS)}, "naive takes no motion"),
        ({"strategy": "motion"}, {"motion": torch.zeros(2, 3)}, r"shape \(2, 105\), got \(2, 3\)"),
    ],
)
def test_wrong_inputs_are_named(make_network: Make, changes: dict, arguments: dict, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        make_network(**changes)(patches(), **{"grid": GRID, **arguments})


def test_only_a_learnable_network_scores_patches(make_network: Make) -> None:
    assert make_network().saliency(patches()).shape == (2, TOKENS)
    with pytest.raises(NetworkError, match="strategy is naive"):
        make_network(strategy="naive").saliency(patches())


@pytest.mark.parametrize("strategy", ["none", *STRATEGIES])
def test_no_clip_is_a_batch_too(make_network: Make, strategy: str) -> None:
    motion = motion_for(strategy)
    out = make_network(strategy=strategy)(patches()[:0], GRID, motion=None if motion is None else motion[:0])
    assert out.prediction.shape == (0, 3)
    assert len(out.plan.group) == 0


@pytest.mark.parametrize("strategy", ["none", *STRATEGIES])
def test_tokens_left_are_those_of_a_run(make_network: Make, strategy: str) -> None:
    network = make_network(strategy=strategy)
    tokens, _ = network.tokens(patches(), GRID, motion=motion_for(strategy))
    assert tokens_left(network.config, GRID) == tokens.shape[1]
