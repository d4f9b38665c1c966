"""The fields of a config.json, read with the family's defaults; what is odd is said in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vtm.encoders.config import Activation
from vtm.errors import EncoderError

Json = Mapping[str, Any]

ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


class Fields:
    """Reads a config's fields, falling back to the family's default, and says what is odd in one line."""

    def __init__(self, config: Json, defaults: Json) -> None:
        self._values = {**defaults, **{name: value for name, value in config.items() if value is not None}}

    def integer(self, name: str) -> int:
        """A whole number, 0 or more."""
        value = self._values.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise EncoderError(f"config.json: {name} is {value!r}, expected a whole number")
        return value

    def number(self, name: str) -> float:
        """Any number."""
        value = self._values.get(name)
        if not isinstance(value, (int, float)):
            raise EncoderError(f"config.json: {name} is {value!r}, expected a number")
        return float(value)

    def flag(self, name: str) -> bool:
        """Yes or no."""
        return bool(self._values.get(name))

    def pair(self, name: str) -> tuple[int, int]:
        """A (height, width) given as one number or as two."""
        value = self._values.get(name)
        if isinstance(value, int):
            return value, value
        if isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(side, int) for side in value):
            return value[0], value[1]
        raise EncoderError(f"config.json: {name} is {value!r}, expected a size in pixels or [height, width]")

    def activation(self) -> Activation:
        """The MLP's activation."""
        value = self._values.get("hidden_act")
        if value not in ACTIVATIONS:
            raise EncoderError(
                f"config.json: hidden_act is {value!r}, expected one of {', '.join(sorted(ACTIVATIONS))}"
            )
        return ACTIVATIONS[value]

    def patch_px(self) -> int:
        """Side of a patch."""
        height_px, width_px = self.pair("patch_size")
        if height_px != width_px:
            raise EncoderError(f"config.json: patch_size is {height_px} x {width_px}, expected square patches")
        return height_px

    def grid_hw(self) -> tuple[int, int]:
        """Patches of the training size, rows and columns."""
        height_px, width_px = self.pair("image_size")
        return height_px // self.patch_px(), width_px // self.patch_px()


def body_fields(fields: Fields) -> dict[str, Any]:
    """The fields that all families spell alike."""
    dim, num_heads = fields.integer("hidden_size"), fields.integer("num_attention_heads")
    if num_heads == 0 or dim % num_heads:
        raise EncoderError(f"config.json: hidden_size {dim} does not divide into num_attention_heads {num_heads}")
    return {
        "dim": dim,
        "num_blocks": fields.integer("num_hidden_layers"),
        "num_heads": num_heads,
        "patch_px": fields.patch_px(),
        "activation": fields.activation(),
        "norm_eps": fields.number("layer_norm_eps"),
    }
