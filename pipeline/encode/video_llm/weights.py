"""The vision tensors of a checkpoint: only the files that hold them are fetched, hashed and opened."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from pipeline.encode.video_llm.families import VideoLlmFamily
from vtm.encoders import EncoderError
from vtm.encoders.checkpoint import Checkpoint, open_checkpoint
from vtm.encoders.checkpoint.files import INDEX, WEIGHTS, file_sha256, read_json

PREFIX = "model."
"""Newer checkpoints have it before every name, older ones have not."""
PROBED = 256


def open_vision(folder_or_id: str | Path, revision: str | None, family: VideoLlmFamily) -> Checkpoint:
    """Find a checkpoint; of a hub id, fetch only the files with vision tensors.

    Raises:
        EncoderError: it cannot be found, or its index names no vision tensor.
    """
    checkpoint = open_checkpoint(folder_or_id, revision=revision, weights=False)
    if Path(folder_or_id).expanduser().is_dir():
        return checkpoint
    index = checkpoint.folder / INDEX
    shards: dict[str, str] = read_json(index).get("weight_map", {}) if index.is_file() else {}
    wanted = {file for name, file in shards.items() if is_vision(name, family)} or {WEIGHTS}
    return open_checkpoint(folder_or_id, revision=revision, weights=tuple(sorted(wanted)))


def vision_files(checkpoint: Checkpoint, family: VideoLlmFamily) -> dict[str, Path]:
    """Which file holds each vision tensor, by the names on disk.

    Raises:
        EncoderError: there is none.
    """
    files = checkpoint.files_of()
    found = {name: path for name, path in files.items() if is_vision(name, family)}
    if not found:
        expected = ", ".join(f"{part}.*" for part in family.parts)
        example = f"; it holds names such as {min(files)}" if files else ""
        raise EncoderError(
            f"{checkpoint.name}: no tensor is of the vision part: expected {expected}, with or without {PREFIX!r} "
            f"before them{example}"
        )
    return found


def read_vision(checkpoint: Checkpoint, family: VideoLlmFamily) -> dict[str, Tensor]:
    """The vision tensors by their names without `model.`; each file that holds some is opened once.

    Raises:
        EncoderError: there is none, a name is there with and without `model.`, or a file lacks what its index names.
    """
    read = checkpoint.tensors(vision_files(checkpoint, family))
    bare = {name.removeprefix(PREFIX): tensor for name, tensor in read.items()}
    if len(bare) < len(read):
        twice = next(name for name in read if not name.startswith(PREFIX) and PREFIX + name in read)
        raise EncoderError(f"{checkpoint.name}: holds both {twice} and {PREFIX + twice}: which one is meant?")
    return bare


def vision_sha256(checkpoint: Checkpoint, family: VideoLlmFamily) -> str:
    """Hash of the files with vision tensors, hex."""
    digests = [file_sha256(path) for path in sorted(set(vision_files(checkpoint, family).values()))]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def probe_of(checkpoint: Checkpoint, family: VideoLlmFamily) -> str:
    """`probe_hash` of the checkpoint's projection.

    Raises:
        EncoderError: it is missing.
    """
    names = [name for name in vision_files(checkpoint, family) if name.removeprefix(PREFIX) == family.probe]
    if not names:
        raise EncoderError(f"{checkpoint.name}: the weights lack {family.probe}, which the vision part needs")
    return probe_hash(checkpoint.tensors(names[:1])[names[0]])


def probe_hash(weight: Tensor) -> str:
    """16 hex digits of a weight's first values in bfloat16: the same for a model in float32 as in bfloat16."""
    values = weight.detach().flatten()[:PROBED].to("cpu", torch.bfloat16)
    return hashlib.sha256(values.view(torch.int16).numpy().tobytes()).hexdigest()[:16]


def is_vision(name: str, family: VideoLlmFamily) -> bool:
    """Whether a tensor on disk is of the vision part."""
    return name.removeprefix(PREFIX).split(".")[0] in family.parts
