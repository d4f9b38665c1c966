"""The encoder's output as the models of `transformers` take it in place of pixels (`mm_encoder_outputs`)."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from pipeline.consumers.readers import Reader
from pipeline.errors import SettingsError

SINCE = (5, 18)
"""The version from which models take `mm_encoder_outputs`."""


def encoder_output(tokens_MD: Tensor, deepstack_MD: Sequence[Tensor], reader: Reader) -> dict[str, Any]:
    """A new `mm_encoder_outputs`: beam search changes the object that it is given.

    Args:
        tokens_MD: what the model reads.
        deepstack_MD: features that are added after the model's first layers, one for each.
        reader: of the family.
    """
    require_version()
    pooled: list[Tensor] | Tensor = [tokens_MD] if reader.as_list else tokens_MD[None]
    if deepstack_MD:
        from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

        return {
            reader.modality: BaseModelOutputWithDeepstackFeatures(
                pooler_output=pooled, deepstack_features=[[layer_MD] for layer_MD in deepstack_MD]
            )
        }
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    return {reader.modality: BaseModelOutputWithPooling(pooler_output=pooled)}


def require_version() -> None:
    """Refuse a `transformers` whose models do not take cached tokens.

    Raises:
        SettingsError: it is older than `SINCE`, or missing.
    """
    try:
        version = importlib.metadata.version("transformers")
    except importlib.metadata.PackageNotFoundError as error:
        raise SettingsError("transformers is not installed: pip install 'vtm-pipeline[transformers]'") from error
    if tuple(int(part) for part in version.split(".")[:2]) < SINCE:
        raise SettingsError(
            f"transformers {version} takes no cached tokens (mm_encoder_outputs): install "
            f"{SINCE[0]}.{SINCE[1]} or newer"
        )
