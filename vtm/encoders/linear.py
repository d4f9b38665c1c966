"""Linear maps that take along what follows them, and lay their weight out once for a CPU that computes in bfloat16.

torch lays a weight out anew for every product, and adds bias, activation and residual in passes of their own. With 257
tokens a product that costs a tenth. The operators used here are those that torch's own compiler emits for a CPU.

Letters: B batch, S tokens, I channels in, O channels out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtm.encoders.config import Activation

ACTIVATE: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "silu": F.silu,
}
_FUSED: dict[Activation, tuple[str, str]] = {"gelu": ("gelu", "none"), "gelu_tanh": ("gelu", "tanh")}
"""The kernel's name and variant of an activation that it computes before it writes a product."""


class Linear(nn.Linear):
    """`nn.Linear` with two more forms."""

    def forward(self, x_BSI: Tensor) -> Tensor:
        """The product and the bias, (B, S, O)."""
        return self._packed_product(x_BSI) if self.weight.is_mkldnn else super().forward(x_BSI)

    def activated(self, x_BSI: Tensor, activation: Activation) -> Tensor:
        """The activation of the product, (B, S, O)."""
        if self.weight.is_mkldnn and activation in _FUSED:
            return self._packed_product(x_BSI, *_FUSED[activation])
        return ACTIVATE[activation](self(x_BSI))

    def added_to(self, residual_BSO: Tensor, x_BSI: Tensor) -> Tensor:
        """The residual and the product, (B, S, O)."""
        if self.weight.is_mkldnn:
            product = torch.ops.mkldnn._linear_pointwise.binary(x_BSI, residual_BSO, self.weight, self.bias, "add")
            return cast(Tensor, product)
        return residual_BSO + cast(Tensor, self(x_BSI))

    def _packed_product(self, x_BSI: Tensor, kernel: str = "none", variant: str = "") -> Tensor:
        product = torch.ops.mkldnn._linear_pointwise(x_BSI, self.weight, self.bias, kernel, [], variant)
        return cast(Tensor, product)


def pack_linear_maps(network: nn.Module) -> None:
    """Lay the weights of every `Linear` out for this CPU's kernels, where it multiplies bfloat16 natively.

    A packed network stays on the CPU and is for inference alone: no gradient passes it.
    """
    # Older releases of torch cannot say what the CPU has; they compute without the layout.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    if not native or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return
    for module in network.modules():
        if isinstance(module, Linear) and module.weight.device.type == "cpu" and module.weight.dtype == torch.bfloat16:
            packed = torch.ops.mkldnn._reorder_linear_weight(module.weight, None)
            module.weight = nn.Parameter(packed, requires_grad=False)
