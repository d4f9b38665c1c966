"""What `vtm bench encoder` measures: the encoder in several forms, those that are not offered too."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from vtm.encoders import Encoder, EncoderOutput, load_encoder
from vtm.encoders.compiling import compile_blocks
from vtm.encoders.config import Activation
from vtm.encoders.linear import ACTIVATE, Linear
from vtm.errors import EncoderError


@dataclass(frozen=True)
class Contender:
    """One row: a name and what encodes a batch."""

    name: str
    encode: Callable[[Tensor], Any]
    """Takes pixels in the run's dtype."""
    encoder_keep: float = 1.0
    fidelity: float | None = None
    """Mean cosine of each patch's token to that of the uncompressed encoder in float32, over the batch."""
    weights_bytes: int = 0
    """What its parameters take."""


@dataclass(frozen=True)
class Setup:
    """What all contenders have in common."""

    folder: str | Path
    layer: int
    dtype: torch.dtype
    device: str
    compiled: bool
    """Whether to measure compiled forms too."""

    def load(self, dtype: torch.dtype | None = None, encoder_keep: float = 1.0) -> Encoder:
        """The encoder in the run's dtype, or in another."""
        chosen = self.dtype if dtype is None else dtype
        return load_encoder(self.folder, layer=self.layer, dtype=chosen, device=self.device, encoder_keep=encoder_keep)

    def load_unpacked(self) -> Encoder:
        """The encoder in the run's dtype, with its weights as they are on any device."""
        return self.load(torch.float32).to(self.dtype)


def own_contenders(
    setup: Setup, encoder: Encoder, pixels: Tensor, keeps: Sequence[float], dtypes: Sequence[str]
) -> list[Contender]:
    """`encoder`, and its other forms."""
    exact = setup.load(torch.float32)
    truth_BND = exact(pixels.float()).patches

    def contender(
        name: str, encode: Callable[[Tensor], EncoderOutput], keep: float = 1.0, network: Encoder | None = None
    ) -> Contender:
        out = encode(pixels)
        tokens = out.patches if out.plan is None else out.plan.spread(out.patches)
        cosine = torch.nn.functional.cosine_similarity(tokens.float(), truth_BND, dim=-1)
        module = network if network is not None else cast(Encoder, encode)
        return Contender(name, encode, keep, float(cosine.mean()), parameter_bytes(module))

    contenders = [contender("vtm", encoder)]
    contenders += [contender(f"vtm, keep {keep:g}", setup.load(encoder_keep=keep), keep) for keep in keeps]
    if "float32" in dtypes:
        contenders.append(
            contender("vtm, float32", lambda pixels: cast(EncoderOutput, exact(pixels.float())), network=exact)
        )
    if "int8" in dtypes:
        contenders.append(contender("vtm, int8 linear maps", with_int8_maps(setup.load_unpacked())))
    if setup.compiled:
        compiled = setup.load_unpacked()
        try:
            compile_blocks(compiled, len(pixels))
        except EncoderError as error:
            print(f"no row 'vtm, compiled': {error}", file=sys.stderr)
        else:
            contenders.append(contender("vtm, compiled", compiled))
    return contenders


def parameter_bytes(module: torch.nn.Module) -> int:
    """What the parameters of a network take."""
    return sum(parameter.nbytes for parameter in module.parameters())


class Int8Linear(Linear):
    """Weights in int8 by output channel, activations quantized anew at every call, by tensor; measured, not offered."""

    packed: Any

    def forward(self, x_BSI: Tensor) -> Tensor:
        """The product, (B, S, O), in the dtype of x."""
        return cast(Tensor, torch.ops.quantized.linear_dynamic(x_BSI.float(), self.packed, False)).to(x_BSI.dtype)

    def activated(self, x_BSI: Tensor, activation: Activation) -> Tensor:
        """The activation of the product."""
        return ACTIVATE[activation](self(x_BSI))


def with_int8_maps(encoder: Encoder) -> Encoder:
    """The encoder with the blocks' linear maps in int8 by oneDNN, which has the fastest of torch's kernels for them."""
    torch.backends.quantized.engine = "onednn"
    for module in encoder.vit.blocks.modules():
        if isinstance(module, Linear):
            weight_OI = module.weight.float()
            scale_O = weight_OI.abs().amax(dim=1).double() / 127
            with warnings.catch_warnings():
                # That torch's own quantization tools have moved to another package.
                warnings.simplefilter("ignore")
                quantized = torch.quantize_per_channel(
                    weight_OI, scale_O, torch.zeros_like(scale_O).long(), 0, torch.qint8
                )
            bias = None if module.bias is None else module.bias.detach().float().clone()
            module.__class__ = Int8Linear
            module.packed = torch.ops.quantized.linear_prepack(quantized, bias)
    return encoder
