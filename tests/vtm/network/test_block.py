from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from tests.vtm.network import network_oracle as oracle
from vtm.network.block import POOLING_SHARPNESS, VideoBlock, Windows
from vtm.network.config import NetworkConfig
from vtm.network.targets import choose_targets

BATCH, TOKENS, WIDTH, WIDTH_OUT = 2, 23, 11, 7
ROUNDING = 1e-12


def make_block(config: NetworkConfig, **changes: object) -> VideoBlock:
    torch.manual_seed(3)
    block = VideoBlock(dataclasses.replace(config, dropout=0.0, **changes), WIDTH, WIDTH_OUT).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return block


def make_windows(auxiliary: bool = False) -> Windows:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(BATCH, TOKENS, WIDTH, generator=generator, dtype=torch.float64)
    cue = (torch.rand(BATCH, TOKENS, generator=generator) > 0.7).double()
    noise = torch.randn(BATCH, TOKENS, generator=generator, dtype=torch.float64)
    earlier = torch.randn(BATCH, TOKENS, WIDTH, generator=generator, dtype=torch.float64) if auxiliary else None
    return Windows(x, cue, noise, earlier)


def qkv_of_head(block: VideoBlock, x: Tensor, head: int) -> list[oracle.Matrix]:
    config = block.config
    normed = oracle.layer_norm(x.tolist(), block.norm.weight.tolist(), block.norm.bias.tolist())
    q_k_v = block.to_qkv.weight.view(3, config.heads, config.head_width, WIDTH)
    return [oracle.times(normed, q_k_v[which, head].T.tolist()) for which in range(3)]


def beside(parts: list[oracle.Matrix]) -> oracle.Matrix:
    return [[value for part in parts for value in part[i]] for i in range(len(parts[0]))]


def expected_window(block: VideoBlock, x: Tensor, auxiliary: Tensor, targets: list[int]) -> tuple[Tensor, Tensor]:
    """Equations 3 to 10 of one window: results of the main and of the auxiliary path (saliency 0 if none is learnt)."""
    config = block.config
    heads = range(config.heads)
    mine = [qkv_of_head(block, x, head) for head in heads]
    keys = beside([k for _, k, _ in mine])
    scores = [0.0] * TOKENS if block.to_saliency is None else oracle.saliency(keys, block.to_saliency.weight.T.tolist())
    attended = beside([oracle.attention(q, k, v, math.sqrt(config.head_width)) for q, k, v in mine])
    theirs = [qkv_of_head(block, auxiliary, head) for head in heads]
    detour = beside([oracle.attention(q, k, v, math.sqrt(WIDTH), scores) for q, k, v in theirs])
    members = oracle.groups(keys, targets, config.merge_share) if targets else [[i] for i in range(TOKENS)]
    weight, bias = block.to_out.weight.T.tolist(), block.to_out.bias.tolist()
    main, aux = (oracle.linear_gelu(oracle.merged(y, members), weight, bias) for y in (attended, detour))
    return torch.tensor(main, dtype=torch.float64), torch.tensor(aux, dtype=torch.float64)


def targets_of(block: VideoBlock, windows: Windows) -> Tensor:
    score = windows.cue if block.to_saliency is None else block.saliency(windows.x)
    config = block.config
    return choose_targets(config.strategy, (BATCH, TOKENS), config.partition_factor, score, windows.noise)


@pytest.mark.parametrize("attention", ["plain", "fused"])
@pytest.mark.parametrize("merge_share", [1.0, 0.8, 0.0])
@pytest.mark.parametrize("strategy", ["naive", "center", "boundary", "motion", "learnable"])
def test_block_is_equations_3_to_9(
    small_config: NetworkConfig, strategy: str, merge_share: float, attention: str
) -> None:
    block = make_block(small_config, strategy=strategy, merge_share=merge_share, attention=attention)
    windows = make_windows()
    out = block(windows)
    for b, targets in enumerate(targets_of(block, windows).tolist()):
        expected, _ = expected_window(block, windows.x[b], windows.x[b], targets)
        torch.testing.assert_close(out.x[b], expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("attention", ["plain", "fused"])
def test_baseline_block_merges_nothing(small_config: NetworkConfig, attention: str) -> None:
    block = make_block(small_config, strategy="none", attention=attention)
    windows = make_windows()
    out = block(windows)
    expected, _ = expected_window(block, windows.x[1], windows.x[1], [])
    torch.testing.assert_close(out.x[1], expected, rtol=0, atol=ROUNDING)
    assert out.plan is None


@pytest.mark.parametrize("attention", ["plain", "fused"])
@pytest.mark.parametrize("earlier", [False, True])
def test_auxiliary_path_is_equation_10(small_config: NetworkConfig, earlier: bool, attention: str) -> None:
    block = make_block(small_config, attention=attention)
    windows = make_windows(auxiliary=earlier)
    out = block(windows, with_auxiliary=True)
    auxiliary = windows.x if windows.auxiliary is None else windows.auxiliary
    for b, targets in enumerate(targets_of(block, windows).tolist()):
        _, expected = expected_window(block, windows.x[b], auxiliary[b], targets)
        torch.testing.assert_close(out.auxiliary[b], expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("attention", ["plain", "fused"])
def test_scorer_learns_from_the_auxiliary_path_alone(small_config: NetworkConfig, attention: str) -> None:
    block = make_block(small_config, attention=attention)
    u_s = block.to_saliency.weight
    out = block(make_windows(), with_auxiliary=True)
    # The sum of squares, since a plain sum of softmax-weighted values may be flat.
    assert torch.autograd.grad(out.x.square().sum(), u_s, retain_graph=True, allow_unused=True) == (None,)
    (gradient,) = torch.autograd.grad(out.auxiliary.square().sum(), u_s)
    assert gradient.abs().min() > 0


@pytest.mark.parametrize("attention", ["plain", "fused"])
def test_gradient_of_the_saliency_is_the_difference_quotient(small_config: NetworkConfig, attention: str) -> None:
    block = make_block(small_config, attention=attention, merge_share=0.0)
    windows, u_s = make_windows(), block.to_saliency.weight

    def loss() -> Tensor:
        return block(windows, with_auxiliary=True).auxiliary.square().sum()

    (gradient,) = torch.autograd.grad(loss(), u_s)
    step = 1e-6
    with torch.no_grad():
        u_s[0, 4] += step
        above = loss()
        u_s[0, 4] -= 2 * step
        below = loss()
    torch.testing.assert_close(gradient[0, 4], (above - below) / (2 * step), rtol=1e-5, atol=1e-8)


def test_pooled_prediction_is_a_softmax_of_scores_over_normed_tokens(small_config: NetworkConfig) -> None:
    block = make_block(small_config, auxiliary="pooling")
    x = make_windows().x
    got = block.pooled_prediction(x).detach()
    for b in range(BATCH):
        weights = [math.exp(POOLING_SHARPNESS * float(score)) for score in block.saliency(x)[b].detach()]
        normed = torch.nn.functional.layer_norm(x[b], (WIDTH,), block.norm.weight, block.norm.bias)
        pooled = sum(weight * token for weight, token in zip(weights, normed, strict=True)) / sum(weights)
        expected = block.pooled_head.weight @ pooled + block.pooled_head.bias
        torch.testing.assert_close(got[b], expected.detach(), rtol=0, atol=ROUNDING)


def test_draw_sharpness_scales_the_scores(small_config: NetworkConfig) -> None:
    windows, drawn = make_windows(), []
    for sharpness in (0.0, 1.0, 100.0):
        block = make_block(small_config, draw_sharpness=sharpness, merge_share=1.0)
        scores = sharpness * block.saliency(windows.x)
        factor = small_config.partition_factor
        drawn.append(choose_targets("learnable", (BATCH, TOKENS), factor, scores, windows.noise))
        assert torch.equal(block(windows).plan.targets, drawn[-1])
    assert not torch.equal(drawn[0], drawn[2])
