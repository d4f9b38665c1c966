"""A folder, or a repository of the Hugging Face hub -> config, tensors and the hash of the weights.

Weights are read from safetensors only: pickles run code when they are opened.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from vtm.errors import EncoderError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth")

_HASH_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A folder in the Hugging Face format."""

    name: str
    """As the user named it."""
    folder: Path

    def config(self) -> Mapping[str, Any]:
        """config.json, parsed."""
        return read_json(self.folder / CONFIG)

    def files_of(self) -> dict[str, Path]:
        """Which file holds each tensor."""
        index = self.folder / INDEX
        if (self.folder / WEIGHTS).is_file():
            with _open_weights(self.folder / WEIGHTS) as weights:
                return dict.fromkeys(weights.keys(), self.folder / WEIGHTS)
        if index.is_file():
            shards: Mapping[str, str] = read_json(index).get("weight_map", {})
            return {name: self.folder / shard for name, shard in shards.items()}
        pickles = [name for name in PICKLES if (self.folder / name).exists()]
        if pickles:
            raise EncoderError(
                f"{self.name}: holds {pickles[0]} but no {WEIGHTS}; pickles are not opened because they can run code: "
                "convert the weights to safetensors"
            )
        raise EncoderError(
            f"{self.name}: lacks {WEIGHTS}; expected {CONFIG}, {WEIGHTS} and {PREPROCESSOR} in {self.folder}"
        )

    def tensors(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Read the tensors of these names, each file opened once.

        Raises:
            EncoderError: a file is missing, damaged, or lacks a tensor that the index promises.
        """
        files = self.files_of()
        by_file: dict[Path, list[str]] = {}
        for name in names:
            by_file.setdefault(files[name], []).append(name)
        read: dict[str, Tensor] = {}
        for path, wanted in by_file.items():
            with _open_weights(path) as weights:
                held = set(weights.keys())
                for name in wanted:
                    if name not in held:
                        raise EncoderError(f"{path}: lacks the tensor {name!r} that {INDEX} places there")
                    read[name] = weights.get_tensor(name)
        return read

    def weights_sha256(self) -> str:
        """Hash of the weight files' content, hex; of several files, the hash of their hashes in order of name."""
        digests = [file_sha256(path) for path in sorted(set(self.files_of().values()))]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def open_checkpoint(
    folder_or_id: str | Path, *, revision: str | None = None, weights: bool | tuple[str, ...] = True
) -> Checkpoint:
    """Find a checkpoint: an existing folder, else a hub id, which is fetched into the hub's own cache.

    Args:
        folder_or_id: a folder, or `owner/name`.
        revision: branch, tag or commit of a hub id; a folder has none.
        weights: whether to fetch the weights too, or which of their files.

    Raises:
        EncoderError: neither a folder nor a hub id that can be reached.
    """
    folder = Path(folder_or_id).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise EncoderError(f"revision {revision!r} was given with the folder {folder}; only a hub id has revisions")
        return Checkpoint(name=str(folder_or_id), folder=folder)
    name = str(folder_or_id)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise EncoderError(
            f"{name}: no such folder; expected a folder holding {CONFIG} and {WEIGHTS}, or a hub id owner/name"
        )
    return Checkpoint(name=name, folder=_fetch(name, revision, weights))


def _fetch(name: str, revision: str | None, weights: bool | tuple[str, ...]) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError as error:
        raise EncoderError(
            f"{name}: no such folder, and fetching it from the hub needs the package huggingface-hub: "
            "pip install 'vtm-pipeline[hub]', or name a local folder"
        ) from error
    files = weights if isinstance(weights, tuple) else ("*.safetensors",) * weights
    patterns = ["*.json", "*.txt", "tokenizer.model", *files]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EncoderError(
            f"{name}: no such folder, and the hub cannot give it ({reason}); "
            f"check the id and the network, or name a folder holding {CONFIG}, {WEIGHTS} and {PREPROCESSOR}"
        ) from error


def read_json(path: Path) -> Mapping[str, Any]:
    """One JSON object from a file.

    Raises:
        EncoderError: the file is missing or holds something else.
    """
    if not path.is_file():
        raise EncoderError(f"{path.parent}: lacks {path.name}; expected {CONFIG}, {WEIGHTS} and {PREPROCESSOR}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EncoderError(f"{path}: is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise EncoderError(f"{path}: holds {type(content).__name__}, expected a JSON object")
    return content


def _open_weights(path: Path) -> Any:  # safetensors gives its handle no public type
    try:
        return safe_open(path, framework="pt")
    except FileNotFoundError as error:
        raise EncoderError(f"{path.parent}: lacks {path.name}, which {INDEX} names") from error
    except (SafetensorError, OSError) as error:
        raise EncoderError(f"{path}: is not a readable safetensors file ({error})") from error


def file_sha256(path: Path) -> str:
    """Hash of a file's content, hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
