"""The block that merges before it attends: against plain sums over groups, and what trains its scores."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vtm.network import NetworkConfig, NetworkError, VideoTokenMerging, load_scorer, save_model, scorer_of_network
from vtm.network.block import Windows
from vtm.network.weighted import WeightedBlock

Make = Callable[..., VideoTokenMerging]
BATCH, TOKENS, WIDTH, WIDTH_OUT = 2, 23, 11, 7
GRID = (7, 3, 5)
ROUNDING = 1e-12


def make_block(config: NetworkConfig, **changes: object) -> WeightedBlock:
    torch.manual_seed(3)
    block = WeightedBlock(
        dataclasses.replace(config, strategy="weighted", dropout=0.0, **changes), WIDTH, WIDTH_OUT
    ).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return block


def make_windows(masses: bool = True) -> Windows:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(BATCH, TOKENS, WIDTH, generator=generator, dtype=torch.float64)
    log_mass = torch.randn(BATCH, TOKENS, generator=generator, dtype=torch.float64) * float(masses)
    return Windows(x, log_mass, torch.randn(BATCH, TOKENS, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("attention", ["plain", "fused"])
@pytest.mark.parametrize("merge_share", [1.0, 0.8])
@torch.no_grad()
def test_groups_are_weighted_means_that_count_by_their_mass(
    small_config: NetworkConfig, attention: str, merge_share: float
) -> None:
    block, windows = make_block(small_config, attention=attention, merge_share=merge_share), make_windows()
    out = block(windows)
    config = block.config
    normed = torch.nn.functional.layer_norm(windows.x, (WIDTH,), block.norm.weight, block.norm.bias)
    for b in range(BATCH):
        members = [[n for n in range(TOKENS) if out.plan.group[b, n] == m] for m in range(out.plan.num_groups)]
        weights = [
            math.exp(3.0 * math.tanh(float(normed[b, n] @ block.to_score.weight[0])) + float(windows.cue[b, n]))
            for n in range(TOKENS)
        ]
        mass = torch.tensor([sum(weights[n] for n in group) for group in members], dtype=torch.float64)
        merged = torch.stack([sum(weights[n] * normed[b, n] for n in group) for group in members]) / mass[:, None]
        queries, keys, values = (
            (merged @ part.T).view(-1, config.heads, config.head_width).transpose(0, 1)
            for part in block.to_qkv.weight.chunk(3)
        )
        logits = queries @ keys.transpose(1, 2) / math.sqrt(config.head_width)
        share = mass * logits.exp()
        attended = (share / share.sum(dim=2, keepdim=True)) @ values
        hidden = attended.transpose(0, 1).flatten(1) @ block.to_out.weight.T + block.to_out.bias
        torch.testing.assert_close(out.x[b], torch.nn.functional.gelu(hidden), rtol=0, atol=ROUNDING)
        torch.testing.assert_close(out.log_mass[b].exp(), mass, rtol=ROUNDING, atol=ROUNDING)


def test_no_sharpness_is_sizes_and_plain_means(small_config: NetworkConfig) -> None:
    out = make_block(small_config, weight_sharpness=0.0)(make_windows(masses=False))
    torch.testing.assert_close(out.log_mass.exp(), out.plan.sizes.double(), rtol=0, atol=ROUNDING)


def test_large_masses_do_not_overflow(small_config: NetworkConfig) -> None:
    block = make_block(small_config, weight_sharpness=400.0).float()
    windows = make_windows()
    out = block(Windows(windows.x.float(), windows.cue.float() + 500, windows.noise.float()))
    assert out.x.isfinite().all()


def loss_of(network: VideoTokenMerging, x: Tensor) -> Tensor:
    return network(x, GRID, seeds=[1, 2]).prediction.square().sum()


@pytest.mark.parametrize("attention", ["plain", "fused"])
def test_the_prediction_alone_trains_every_score(make_network: Make, attention: str) -> None:
    """What equation 10 needs an auxiliary path for: gradients through the weights, as difference quotients."""
    network = make_network(strategy="weighted", auxiliary="none", attention=attention, draw_sharpness=0.0)
    x = torch.randn(2, 105, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    scores = [block.to_score.weight for block in network.blocks]
    gradients = torch.autograd.grad(loss_of(network, x), scores)
    step = 1e-6
    for weight, gradient in zip(scores, gradients, strict=True):
        with torch.no_grad():
            weight[0, 2] += step
            above = loss_of(network, x)
            weight[0, 2] -= 2 * step
            below = loss_of(network, x)
            weight[0, 2] += step
        assert gradient.abs().max() > 0
        torch.testing.assert_close(gradient[0, 2], (above - below) / (2 * step), rtol=1e-4, atol=1e-8)


def test_what_weighs_more_keeps_more_tokens(make_network: Make) -> None:
    network = make_network(strategy="weighted", widths=(9,), windows_frames=(7,), merge_share=1.0, weight_sharpness=8.0)
    x = torch.randn(2, 105, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    plan = network(x, GRID, seeds=[1, 2]).plan
    score = network.saliency(x)
    assert score.gather(1, plan.targets).mean() > score.mean() + 0.3


def test_its_scorer_can_be_used_alone(make_network: Make, tmp_path: object) -> None:
    network = make_network(strategy="weighted").float()
    save_model(tmp_path / "net", network)
    x = torch.randn(2, 105, 11)
    for scorer in (scorer_of_network(network), load_scorer(tmp_path / "net")):
        torch.testing.assert_close(scorer(x, GRID), network.saliency(x), rtol=0, atol=1e-6)


def test_a_negative_sharpness_is_an_error(small_config: NetworkConfig) -> None:
    with pytest.raises(NetworkError, match="weight_sharpness is 0 or more and finite"):
        dataclasses.replace(small_config, weight_sharpness=-1.0)
