"""Calling a model of `transformers`: each family names its input in its own way.

Letters: B passes, F frames of a pass, h x w pixels.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from pipeline.encode.foreign.families import Input
from vtm.encoders import EncoderError


def output_of(model: nn.Module, pixels_BF3hw: Tensor, given: Input, layer: int) -> Tensor:
    """The output of one layer, in whatever shape the model gives it.

    Args:
        model: in evaluation mode.
        pixels_BF3hw: normalised; of a picture model F is 1.
        given: how the model takes frames.
        layer: -1 for `last_hidden_state`, else an index of `hidden_states`.

    Raises:
        EncoderError: the model has no such output.
    """
    if layer == -1:
        output = _call(model, pixels_BF3hw, given).get("last_hidden_state")
        if not isinstance(output, Tensor):
            raise EncoderError(f"{type(model).__name__} has no last_hidden_state, so there are no features to take")
        return output
    states: tuple[Tensor, ...] = _call(model, pixels_BF3hw, given, output_hidden_states=True)["hidden_states"]
    return states[layer]


def resolve_layer(model: nn.Module, pixels_BF3hw: Tensor, given: Input, layer: int) -> int:
    """`layer` as `output_of` takes it: -1 for the last however it was counted, else 1 or more.

    Raises:
        EncoderError: there is no such layer, or the model does not tell its layers' outputs.
    """
    if layer == -1:
        return layer
    states = _call(model, pixels_BF3hw, given, output_hidden_states=True).get("hidden_states")
    if not states:
        raise EncoderError(f"layer {layer}: {type(model).__name__} tells no hidden states; only -1 can be had")
    last = len(states) - 1
    index = layer if layer > 0 else last + 1 + layer
    if not 1 <= index <= last:
        raise EncoderError(f"layer {layer}: expected 1 to {last}, or -1 (the last) down to -{last}")
    return -1 if index == last else index


def _call(model: nn.Module, pixels_BF3hw: Tensor, given: Input, **asked: bool) -> Mapping[str, Any]:
    pixels = pixels_BF3hw if given.is_video else pixels_BF3hw[:, 0]
    known = inspect.signature(model.forward).parameters
    if "skip_predictor" in known:
        # V-JEPA 2 would predict masked tubelets as well.
        asked["skip_predictor"] = True
    if "interpolate_pos_encoding" in known:
        asked["interpolate_pos_encoding"] = _size_hw(model) not in (None, tuple(pixels.shape[-2:]))
    name = "pixel_values_videos" if "pixel_values_videos" in known else "pixel_values"
    outputs: Mapping[str, Any] = model(**{name: pixels}, **asked)
    return outputs


def _size_hw(model: nn.Module) -> tuple[int, int] | None:
    """The picture size that the model's positions are made for, in pixels."""
    size = getattr(model.config, "image_size", None)
    return (size, size) if isinstance(size, int) else tuple(size) if size else None
