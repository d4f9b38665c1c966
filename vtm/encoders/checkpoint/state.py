"""A checkpoint's tensors -> the state of `vit.VisionTransformer`, with what belongs together fused.

Letters: D channels, P positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from vtm.encoders.checkpoint.files import Checkpoint
from vtm.encoders.checkpoint.tensor_names import block_of, own_name
from vtm.encoders.config import VitConfig
from vtm.encoders.positions import resize_table, rotary_angles, rotary_of
from vtm.errors import EncoderError

State = dict[str, Tensor]


def present_config(config: VitConfig, keys: Mapping[str, str]) -> VitConfig:
    """The config without a head that the checkpoint has no tensors of (a classifier's file, or a bare tower's)."""
    heads = {name.split(".")[1] for name in keys if name.startswith("head.")}
    if config.head == "dense" and not heads:
        return replace(config, head="none", pooled_dim=0)
    if config.head == "projection" and not heads:
        return replace(config, head="cls", pooled_dim=config.dim)
    return config


def own_keys(checkpoint: Checkpoint) -> dict[str, str]:
    """Own name -> the checkpoint's name, of every tensor that images need.

    Raises:
        EncoderError: a tensor of the file has no place.
    """
    keys: dict[str, str] = {}
    for key in checkpoint.files_of():
        name = own_name(key)
        if name is None:
            continue
        if name in keys:
            raise EncoderError(f"{checkpoint.name}: the tensors {keys[name]!r} and {key!r} both mean {name}")
        keys[name] = key
    return keys


def read_state(
    checkpoint: Checkpoint, keys: Mapping[str, str], config: VitConfig, *, num_blocks: int, grid_hw: tuple[int, int]
) -> State:
    """Read what the first `num_blocks` blocks and the head need, and fuse it, in float32 or the file's float64.

    Returns:
        Tensors under the names of `VisionTransformer`, `norm` and `head` beside them.

    Raises:
        EncoderError: a tensor is missing or has another shape than the config says.
    """
    wanted = {name: key for name, key in keys.items() if (block := block_of(name)) is None or block < num_blocks}
    read = checkpoint.tensors(wanted.values())
    parts = _Parts({name: _widen(read[key]) for name, key in wanted.items()}, checkpoint.name)
    state = _embeddings(parts, config, grid_hw)
    for index in range(num_blocks):
        state |= _block(parts, config, f"blocks.{index}.")
    return state | parts.rest()


def read_text_state(checkpoint: Checkpoint, keys: Mapping[str, str], body: VitConfig) -> State:
    """`read_state` of a text tower, under the names of `TextEncoder`.

    Raises:
        EncoderError: a tensor of a block is missing or has another shape than the config says.
    """
    read = checkpoint.tensors(keys.values())
    parts = _Parts({name: _widen(read[key]) for name, key in keys.items()}, checkpoint.name)
    state: State = {}
    for index in range(body.num_blocks):
        state |= _block(parts, body, f"blocks.{index}.")
    return state | parts.rest()


def _widen(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class _Parts:
    """The tensors not yet placed, taken out one by one."""

    def __init__(self, tensors: State, checkpoint: str) -> None:
        self._tensors = tensors
        self._checkpoint = checkpoint

    def take(self, name: str, *shape: int) -> Tensor:
        if name not in self._tensors:
            raise EncoderError(f"{self._checkpoint}: the weights lack {name}, which config.json's family has")
        tensor = self._tensors.pop(name)
        if tensor.numel() != torch.Size(shape).numel():
            raise EncoderError(
                f"{self._checkpoint}: {name} has shape {tuple(tensor.shape)}, config.json makes it {tuple(shape)}"
            )
        return tensor.reshape(shape)

    def has(self, name: str) -> bool:
        return name in self._tensors

    def rest(self) -> State:
        return self._tensors


def _embeddings(parts: _Parts, config: VitConfig, grid_hw: tuple[int, int]) -> State:
    """Patch map, prefix tokens with their positions added, positions in the file's grid and in `grid_hw`."""
    dim = config.dim
    state = {"patch.weight": parts.take("patch.weight", dim, 3 * config.patch_px**2)}
    if "patch" in config.biases:
        state["patch.bias"] = parts.take("patch.bias", dim)
    prefix = torch.zeros(0, dim, dtype=state["patch.weight"].dtype)
    if config.has_cls:
        prefix = torch.cat((prefix, parts.take("cls", 1, dim)))
    if config.num_registers:
        prefix = torch.cat((prefix, parts.take("registers", config.num_registers, dim)))
    if config.positions.kind == "learned":
        rows, columns = config.positions.grid_hw
        num_own = config.positions.prefix
        table = parts.take("positions", num_own + rows * columns, dim)
        prefix[:num_own] += table[:num_own]
        state["positions"] = table[num_own:].reshape(rows, columns, dim)
        state["grid_positions"] = resize_table(state["positions"], grid_hw, config.positions)
    else:
        angles = rotary_angles(grid_hw, config.head_dim, config.positions.theta)
        state["grid_rotary"] = torch.stack(rotary_of(angles))
    return {**state, "prefix": prefix}


def _block(parts: _Parts, config: VitConfig, at: str) -> State:
    """One block: q, k and v in one map, gate and up in one map, layer scale inside the maps that it follows."""
    dim, hidden = config.dim, config.mlp_dim
    state = {
        f"{at}{norm}.{kind}": parts.take(f"{at}{norm}.{kind}", dim)
        for norm in ("norm1", "norm2")
        for kind in ("weight", "bias")
    }
    state |= _joined(parts, config, at, "qkv", {"q": dim, "k": dim, "v": dim})
    if not config.gated_mlp:
        state |= _joined(parts, config, at, "fc1", {"fc1": hidden})
    elif parts.has(f"{at}gate_up.weight"):
        state[f"{at}fc1.weight"] = parts.take(f"{at}gate_up.weight", 2 * hidden, dim)
        state[f"{at}fc1.bias"] = parts.take(f"{at}gate_up.bias", 2 * hidden)
    else:
        state |= _joined(parts, config, at, "fc1", {"gate": hidden, "fc1": hidden})
    for name, inputs, scale_name in (("proj", dim, "scale1"), ("fc2", hidden, "scale2")):
        weight = parts.take(f"{at}{name}.weight", dim, inputs)
        scale = parts.take(f"{at}{scale_name}", dim) if config.layer_scale else torch.ones(dim, dtype=weight.dtype)
        state[f"{at}{name}.weight"] = scale[:, None] * weight
        if name in config.biases:
            state[f"{at}{name}.bias"] = scale * parts.take(f"{at}{name}.bias", dim)
    return state


def _joined(parts: _Parts, config: VitConfig, at: str, name: str, rows: Mapping[str, int]) -> State:
    """Several maps of the same input as one; a map without a bias adds zero."""
    state = {
        f"{at}{name}.weight": torch.cat([parts.take(f"{at}{part}.weight", n, config.dim) for part, n in rows.items()])
    }
    has_bias = {part: ("fc1" if part == "gate" else part) in config.biases for part in rows}
    if any(has_bias.values()):
        zero = state[f"{at}{name}.weight"].new_zeros
        biases = [parts.take(f"{at}{part}.bias", n) if has_bias[part] else zero(n) for part, n in rows.items()]
        state[f"{at}{name}.bias"] = torch.cat(biases)
    return state
