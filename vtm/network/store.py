"""A trained network or scorer as a folder: config.json beside model.safetensors, each replaced in one step.

config.json is {"kind": "network" or "scorer", "config": {...}, "origin": {...} or null}.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from vtm.errors import NetworkError
from vtm.network.config import NetworkConfig
from vtm.network.network import VideoTokenMerging
from vtm.network.origin import Origin
from vtm.network.scorer import SaliencyScorer, ScorerConfig, scorer_of_network

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
Device = torch.device | str
Model = TypeVar("Model", bound=nn.Module)


def save_model(folder: Path, model: VideoTokenMerging | SaliencyScorer, origin: Origin | None = None) -> None:
    """Write a network or a scorer; a reader sees the old weights or the new ones, never a part.

    Args:
        folder: made where it does not exist.
        model: on any device.
        origin: what it learned from; without one, nothing can be checked when it is used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kind = "network" if isinstance(model, VideoTokenMerging) else "scorer"
    record = {"kind": kind, "config": asdict(model.config), "origin": None if origin is None else asdict(origin)}
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    # Not save_file, whose files none but their owner may read.
    (folder / f".{WEIGHTS_NAME}.tmp").write_bytes(save(weights))
    (folder / f".{CONFIG_NAME}.tmp").write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for name in (WEIGHTS_NAME, CONFIG_NAME):
        (folder / f".{name}.tmp").replace(folder / name)


def load_network(folder: Path | str, device: Device = "cpu") -> VideoTokenMerging:
    """Read a trained network.

    Args:
        folder: what `save_model` or `vtm train` wrote.
        device: where the network is to be.

    Returns:
        The network in evaluation mode, in the dtype of its weights.

    Raises:
        NetworkError: the folder holds none, or one that this version cannot read.
    """
    kind, values, _ = _read_config(Path(folder))
    if kind != "network":
        raise NetworkError(f"{folder} holds a {kind}, not a network: load_scorer reads it")
    return _with_weights(VideoTokenMerging(_network_config(values)), Path(folder)).to(device).eval()


def load_scorer(folder: Path | str, device: Device = "cpu") -> SaliencyScorer:
    """Read a trained scorer, or the scorer of a trained network's first block, in evaluation mode.

    Args:
        folder: what `save_model` or `vtm train` wrote.
        device: where the scorer is to be.

    Returns:
        A callable, (patches or keys (B, N, C), grid) -> saliency (B, N); its `reads` says which of the two.

    Raises:
        NetworkError: the folder holds none, or one that this version cannot read.
    """
    kind, values, _ = _read_config(Path(folder))
    if kind == "network":
        return scorer_of_network(load_network(folder)).to(device)
    config = ScorerConfig(**_known(values, ScorerConfig, folder))
    return _with_weights(SaliencyScorer(config), Path(folder)).to(device).eval()


def stored_kind(folder: Path | str) -> str:
    """`network` or `scorer`.

    Raises:
        NetworkError: the folder holds neither.
    """
    return _read_config(Path(folder))[0]


def stored_origin(folder: Path | str) -> Origin | None:
    """What a trained network or scorer learned from; None where whoever saved it did not say.

    Raises:
        NetworkError: the folder holds neither, or an origin that this version does not know.
    """
    origin = _read_config(Path(folder))[2]
    if origin is None:
        return None
    values = _known(origin, Origin, f"the origin in {folder}")
    try:
        return Origin(**values | {"classes": tuple(values.get("classes", ()))})
    except TypeError as error:
        raise NetworkError(f"the origin in {folder} is not whole: {error}") from error


def _read_config(folder: Path) -> tuple[str, dict[str, Any], dict[str, Any] | None]:
    path = folder / CONFIG_NAME
    if not path.is_file() or not (folder / WEIGHTS_NAME).is_file():
        raise NetworkError(
            f"{folder} holds no trained network: {CONFIG_NAME} and {WEIGHTS_NAME}, as `vtm train` writes"
        )
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        kind, values, origin = record["kind"], dict(record["config"]), record.get("origin")
    except (ValueError, KeyError, TypeError) as error:
        raise NetworkError(f"{path} is no config of a network or scorer as `vtm train` writes it: {error}") from error
    if kind not in ("network", "scorer"):
        raise NetworkError(f"{path} is of kind {kind!r}, expected network or scorer")
    return kind, values, origin


def _network_config(values: dict[str, Any]) -> NetworkConfig:
    values = _known(values, NetworkConfig, "the network's config")
    for name in ("widths", "windows_frames"):
        if name in values:
            values[name] = tuple(values[name])
    return NetworkConfig(**values)


def _known(values: dict[str, Any], kind: type, where: Path | str) -> dict[str, Any]:
    known = {field.name for field in fields(kind)}
    if unknown := sorted(set(values) - known):
        raise NetworkError(f"{where} has settings that this version does not know: {', '.join(unknown)}")
    return values


def _with_weights(model: Model, folder: Path) -> Model:
    path = folder / WEIGHTS_NAME
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise NetworkError(f"{path} does not fit the {CONFIG_NAME} beside it: {reason}") from error
    return model
