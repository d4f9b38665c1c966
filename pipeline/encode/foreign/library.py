"""The one place that imports `transformers`, and only when a checkpoint needs it.

Code that comes with a checkpoint is never run, pickles are never opened, and nothing is fetched: the files are there.
"""

from __future__ import annotations

import copy
import importlib.util
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.counted import counted
from vtm.encoders import EncoderError
from vtm.encoders.checkpoint import CONFIG, Checkpoint

Config = Any
"""A configuration of `transformers`."""


def is_installed() -> bool:
    """Whether `transformers` is there."""
    return importlib.util.find_spec("transformers") is not None


def read_config(checkpoint: Checkpoint) -> Config:
    """config.json as `transformers` understands it.

    Raises:
        EncoderError: `transformers` does not know the family, or a field has an odd value.
    """
    import transformers

    family, own_code = checkpoint.config().get("model_type"), "auto_map" in checkpoint.config()
    if family not in transformers.CONFIG_MAPPING:
        raise EncoderError(
            f"{CONFIG}: model_type {family!r} is known neither here nor to transformers {transformers.__version__}"
            + ("; code that comes with a checkpoint is never run" if own_code else "")
        )
    with in_one_line(f"{checkpoint.name}: {CONFIG} cannot be used"), _quiet():
        return transformers.AutoConfig.from_pretrained(checkpoint.folder, **_LOCAL)


def empty_model(config: Config, name: str) -> nn.Module:
    """The vision model of a configuration, with shapes but without memory.

    Raises:
        EncoderError: `transformers` has no such model, or a package that it needs is missing.
    """
    import transformers

    with in_one_line(f"{name}: transformers cannot build a {config.model_type} model"), _quiet():
        with torch.device("meta"):
            model = transformers.AutoModel.from_config(config, trust_remote_code=False)
        return _vision_part(model)


def load_model(checkpoint: Checkpoint, config: Config, dtype: torch.dtype) -> tuple[nn.Module, tuple[str, ...]]:
    """The vision model with its weights, and the names of the tensors that the file lacks, which are NaN.

    Raises:
        EncoderError: the weights do not fit the configuration.
    """
    import transformers

    with in_one_line(f"{checkpoint.name}: the weights cannot be loaded"), _quiet():
        model, report = transformers.AutoModel.from_pretrained(
            checkpoint.folder, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True, **_LOCAL
        )
    missing = tuple(sorted(report["missing_keys"]))
    for name in missing:
        # `transformers` makes up what is missing. What the features do not read may be missing; the rest shows as NaN.
        tensor = model.get_parameter_or_buffer(name).detach()
        if tensor.is_floating_point():
            tensor.fill_(torch.nan)
    return _vision_part(model).requires_grad_(False).eval(), missing


def model_class(config: Config) -> Any:
    """The class of a configuration's model, without a head."""
    import transformers

    return transformers.MODEL_MAPPING[type(config)]


def load_vision(
    config: Config, tensors: Mapping[str, Tensor], parts: Sequence[str], name: str, dtype: torch.dtype
) -> nn.Module:
    """A video-LLM whose vision part has these weights, and whose language model is hardly there: no layer, one word.

    Args:
        config: of the whole model.
        tensors: of the vision part, by the names of the model in memory.
        parts: first parts of their names.
        name: of the checkpoint, for the error.
        dtype: of the arithmetic.

    Raises:
        EncoderError: a tensor is missing, has another shape, or has no place.
    """
    slim = copy.deepcopy(config)
    text = slim.get_text_config()
    text.num_hidden_layers, text.vocab_size, text.layer_types = 0, 1, []
    for part in (slim, text):
        part.pad_token_id = None
    with in_one_line(f"{name}: the weights cannot be loaded"), _quiet():
        model, report = model_class(slim).from_pretrained(
            None,
            config=slim,
            state_dict=dict(tensors),
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **_LOCAL,
        )
    missing = sorted(key for key in report["missing_keys"] if key.split(".")[0] in parts)
    if missing:
        others = f" and {counted(len(missing) - 1, 'more tensor')}" if len(missing) > 1 else ""
        raise EncoderError(f"{name}: the weights lack {missing[0]}{others}, which the vision part needs")
    if report["mismatched_keys"]:
        key, found, expected = sorted(report["mismatched_keys"])[0]
        raise EncoderError(f"{name}: {key} has the shape {tuple(found)}, {CONFIG} says {tuple(expected)}")
    if report["unexpected_keys"]:
        raise EncoderError(
            f"{name}: the tensor {sorted(report['unexpected_keys'])[0]} has no place in {type(model).__name__}"
        )
    return model.requires_grad_(False).eval()  # type: ignore[no-any-return]


def own_processor(name: str, fields: Mapping[str, Any]) -> Any | None:
    """An image processor, in Pillow's arithmetic where it has that; None where it cannot be built here."""
    found = _processor_class(name)
    try:
        with _quiet():
            return None if found is None else found.from_dict(dict(fields))
    except (ImportError, ValueError, TypeError, KeyError, AttributeError):
        return None


def processor_defaults(name: str) -> Mapping[str, Any] | None:
    """What an image processor does where its file is silent; None where it is not known."""
    try:
        values = {field: getattr(_processor_class(name), field, None) for field in _PROCESSOR_FIELDS}
    except ImportError:
        return None
    known = {field: value for field, value in values.items() if value is not None}
    return known if "image_mean" in known else None


def _processor_class(name: str) -> Any | None:
    """An image processor's class by its name without the ending."""
    import transformers

    with _quiet():
        pillow = getattr(transformers, f"{name}ImageProcessorPil", None)
        return pillow if pillow is not None else getattr(transformers, f"{name}ImageProcessor", None)


_LOCAL = {"local_files_only": True, "trust_remote_code": False}
_PROCESSOR_FIELDS = (
    *("do_resize", "size", "resample", "do_center_crop", "crop_size", "crop_pct"),
    *("do_rescale", "rescale_factor", "offset", "do_normalize", "image_mean", "image_std"),
)


def _vision_part(model: nn.Module) -> nn.Module:
    """The vision tower of a model that has a text tower too, else the model."""
    tower = getattr(model, "vision_model", None)
    return tower if isinstance(tower, nn.Module) else model


@contextmanager
def in_one_line(what: str) -> Iterator[None]:
    """`transformers` raises whatever comes, over many lines: the first one says it."""
    try:
        yield
    except EncoderError:
        raise
    except (ImportError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise EncoderError(f"{what}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """The first line of an error's text that says something."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the reports, bars and warnings that are for people at a prompt."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
