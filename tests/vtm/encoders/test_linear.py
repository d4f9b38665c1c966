"""Linear maps with what follows them: packed or not, they compute the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vtm.encoders.config import Activation
from vtm.encoders.linear import ACTIVATE, Linear, pack_linear_maps

ROUNDING = 2.0**-7
"""bfloat16 has 8 bits; a product and its sum round at most twice."""


def packed(layer: Linear) -> Linear:
    pack_linear_maps(nn.ModuleList([layer]))
    if not layer.weight.is_mkldnn:
        pytest.skip("this CPU does not multiply bfloat16 natively, so nothing is packed")
    return layer


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def random_map(bias: bool) -> Linear:
    layer = Linear(37, 29, bias=bias, dtype=torch.bfloat16).requires_grad_(False)
    layer.weight.copy_(random(29, 37, seed=0) / 6)
    if layer.bias is not None:
        layer.bias.copy_(random(29, seed=1))
    return layer


def assert_near(got: Tensor, exact: Tensor) -> None:
    assert got.dtype == torch.bfloat16
    assert got.shape == exact.shape
    assert (got.float() - exact).abs().max() < ROUNDING * exact.abs().max()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ACTIVATE)
def test_every_form_equals_float32(activation: Activation, bias: bool) -> None:
    x_BSI, residual_BSO = random(2, 13, 37, seed=2), random(2, 13, 29, seed=3)
    layer = random_map(bias)
    exact = x_BSI.float() @ layer.weight.float().T + (layer.bias.float() if layer.bias is not None else 0)
    for form in (layer, packed(random_map(bias))):
        assert_near(form(x_BSI), exact)
        assert_near(form.activated(x_BSI, activation), ACTIVATE[activation](exact))
        assert_near(form.added_to(residual_BSO, x_BSI), residual_BSO.float() + exact)


def test_rows_do_not_depend_on_each_other() -> None:
    """Else a frame's bytes would depend on how many tokens are encoded with it."""
    layer, x_BSI = packed(random_map(True)), random(1, 257, 37, seed=4)
    assert torch.equal(layer(x_BSI)[:, 100:113], layer(x_BSI[:, 100:113]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_other_dtypes_stay_as_they_are(dtype: torch.dtype) -> None:
    layer = Linear(5, 3, dtype=dtype)
    pack_linear_maps(layer)
    assert not layer.weight.is_mkldnn
