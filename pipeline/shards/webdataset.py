"""Token sets to a WebDataset shard: one sample a clip, fixed times and order, so that bytes are reproducible."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
import safetensors.torch
import torch
import webdataset

from pipeline.shards.four_bits import packed
from pipeline.store import HashingFile
from pipeline.values import TokenSet

MTIME_S = 0.0


def write_webdataset(stream: BinaryIO | HashingFile, clips: Sequence[TokenSet], run: dict[str, Any]) -> None:
    """Write one shard; every sample's json names the fingerprint of the run."""
    writer = webdataset.TarWriter(stream, encoder=False, mtime=MTIME_S, user="", group="")
    for clip in clips:
        writer.write(_sample(clip, run["fingerprint"]))
    writer.close()


def _sample(clip: TokenSet, fingerprint: str) -> dict[str, str | bytes]:
    members: dict[str, str | bytes] = {"__key__": clip.clip_id}
    if clip.tokens_dtype in ("bfloat16", "int8", "int4"):
        members["tokens.safetensors"] = _safetensors(clip)
    else:
        members["tokens.npy"] = _npy(clip.tokens)
    members["sizes.npy"] = _npy(clip.sizes)
    members["centers.npy"] = _npy(clip.centers)
    members["group.npy"] = _npy(clip.group)
    if clip.parent is not None and clip.loss is not None:
        members["parent.npy"], members["loss.npy"] = _npy(clip.parent), _npy(clip.loss)
    if clip.weights is not None:
        members["weights.npy"] = _npy(clip.weights)
    scalars = {
        "clip_id": clip.clip_id,
        "video_id": clip.video_id,
        "uri": clip.uri,
        "clip_index": clip.clip_index,
        "start_ns": clip.start_ns,
        "end_ns": clip.end_ns,
        "frame_time_ns": clip.frame_time_ns.tolist(),
        "grid_thw": list(clip.grid_thw),
        "tokens_shape": list(clip.tokens.shape),
        "tokens_dtype": clip.tokens_dtype,
        "pooled": clip.pooled.tolist(),
        "embedding": None if clip.embedding is None else clip.embedding.tolist(),
        "fidelity": clip.fidelity,
        "motion_source": clip.motion_source,
        "damaged_frames": clip.damaged_frames,
        "batch_frames": clip.batch_frames,
        "fingerprint": fingerprint,
    }
    members["json"] = json.dumps(scalars, sort_keys=True).encode()
    return members


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()


def _safetensors(clip: TokenSet) -> bytes:
    # By way of torch, because numpy has no bfloat16.
    tokens = torch.from_numpy(packed(clip.tokens) if clip.tokens_dtype == "int4" else np.array(clip.tokens))
    tensors = {"tokens": tokens.view(torch.bfloat16) if clip.tokens_dtype == "bfloat16" else tokens}
    if clip.tokens_scale is not None:
        tensors["scale"] = torch.from_numpy(np.array(clip.tokens_scale))
    return safetensors.torch.save(tensors)
