"""All clips of one shard file, one after the other: for verification and reports, which read everything."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.shards.columns import NUMPY_DTYPES, clip_of
from pipeline.shards.four_bits import unpacked_tokens
from pipeline.store import Where, open_store
from pipeline.values import TokenSet

METADATA_KEY = b"vtm"
"""Of a Parquet file's metadata: run.json's content."""
FACTS = (
    *("clip_id", "video_id", "uri", "clip_index", "start_ns", "end_ns", "grid_thw", "tokens_shape", "fidelity"),
    "damaged_frames",
)
ARRAY_MEMBERS = ("tokens", "sizes", "centers", "group", "parent", "loss", "weights")
"""Members of a sample that are an array each."""
_ONE_HEADER = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFacts:
    """One clip in a few numbers, none of which needs its tokens."""

    clip_id: str
    video_id: str
    uri: str
    clip_index: int
    start_ns: int
    end_ns: int
    grid_thw: tuple[int, int, int]
    num_tokens: int
    fidelity: float
    damaged_frames: int = 0

    @property
    def num_sources(self) -> int:
        """N."""
        frames, rows, columns = self.grid_thw
        return frames * rows * columns


def read_shard(out: Where, name: str) -> Iterator[TokenSet]:
    """Clips of a Parquet or WebDataset shard, in memory one row group, or one sample, at a time.

    Args:
        out: Where the run lives.
        name: Of the file in it.

    Raises:
        OSError, ValueError, KeyError: the file is damaged.
    """
    with open_store(out).open(name) as stream:
        yield from read_clips(stream, name)


def read_clips(stream: BinaryIO, name: str) -> Iterator[TokenSet]:
    """Clips of an open shard file; `name` tells its format.

    Raises:
        OSError, ValueError, KeyError: the file is damaged.
    """
    if name.endswith(".parquet"):
        file = pq.ParquetFile(stream, pre_buffer=True)
        for group in range(file.metadata.num_row_groups):
            yield from map(clip_of, file.read_row_group(group).to_pylist())
    else:
        for members in _samples(stream):
            yield clip_of_sample(members)


def fingerprint_of(stream: BinaryIO, name: str) -> str:
    """The fingerprint of the run that wrote a shard file; `name` tells its format.

    Raises:
        OSError, ValueError, KeyError: the file is damaged, or no shard.
    """
    if name.endswith(".parquet"):
        metadata = pq.read_schema(stream).metadata or {}
        return str(json.loads(metadata[METADATA_KEY])["fingerprint"])
    return str(json.loads(next(_samples(stream, only="json"), {"json": b"{}"})["json"])["fingerprint"])


def read_facts(out: Where, name: str) -> Iterator[ClipFacts]:
    """What is known of the clips of a shard file, in order of its rows, without reading a token.

    Raises:
        OSError, ValueError, KeyError: the file is damaged.
    """
    with open_store(out).open(name) as stream:
        if name.endswith(".parquet"):
            rows = pq.ParquetFile(stream, pre_buffer=True).read(columns=list(FACTS)).to_pylist()
        else:
            rows = [json.loads(members["json"]) for members in _samples(stream, only="json")]
    for row in rows:
        values = {name: row[name] for name in FACTS if name not in ("grid_thw", "tokens_shape")}
        yield ClipFacts(**values, grid_thw=tuple(row["grid_thw"]), num_tokens=row["tokens_shape"][0])


def read_vectors(out: Where, name: str, column: str) -> NDArray[np.float32] | None:
    """A column of vectors of a shard file, (rows, channels), without reading a token; None where a row has none.

    Args:
        out: Where the run lives.
        name: Of the file in it.
        column: `pooled` or `embedding`.

    Raises:
        OSError, ValueError, KeyError: the file is damaged.
    """
    with open_store(out).open(name) as stream:
        if name.endswith(".parquet"):
            table = pq.ParquetFile(stream, pre_buffer=True).read(columns=[column])
            rows = table.column(column).combine_chunks()
            if rows.null_count:
                return None
            values: NDArray[np.float32] = rows.flatten().to_numpy(zero_copy_only=False)
            return values.reshape(table.num_rows, -1)
        vectors = [json.loads(members["json"])[column] for members in _samples(stream, only="json")]
    return None if any(vector is None for vector in vectors) else np.asarray(vectors, dtype=np.float32)


def _samples(stream: BinaryIO, only: str = "") -> Iterator[dict[str, bytes]]:
    """Members of each sample of a tar file by their extension."""
    sample: dict[str, bytes] = {}
    key_before = None
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                key, _, extension = member.name.partition(".")
                if key_before not in (None, key):
                    yield sample
                    sample = {}
                key_before = key
                content = archive.extractfile(member) if not only or extension == only else None
                if content is not None:
                    sample[extension] = content.read()
    except tarfile.TarError as error:
        raise ValueError(str(error)) from error
    if key_before is not None:
        yield sample


def clip_of_sample(members: dict[str, bytes]) -> TokenSet:
    """The token set of a WebDataset sample, its members by extension.

    Raises:
        KeyError, ValueError: it is none.
    """
    scalars = json.loads(members["json"])
    same = ("clip_id", "video_id", "uri", "clip_index", "start_ns", "end_ns", "fidelity", "motion_source")
    arrays = arrays_of_sample(members, scalars)
    for name in ("tokens", "sizes", "centers", "group"):
        arrays[name]  # A sample without one of them is none.
    return TokenSet(
        **{name: scalars[name] for name in (*same, "damaged_frames", "batch_frames", "tokens_dtype")},
        **{"tokens_scale": None} | arrays,
        grid_thw=tuple(scalars["grid_thw"]),
    )


def arrays_of_sample(members: dict[str, bytes], scalars: dict[str, Any]) -> dict[str, Any]:
    """The arrays of a sample by the names of `TokenSet`, of those members that are given; `scalars` is its json.

    Raises:
        ValueError: a member holds no array.
    """
    arrays: dict[str, Any] = {name: _npy(members[f"{name}.npy"]) for name in ARRAY_MEMBERS if f"{name}.npy" in members}
    if "tokens.safetensors" in members:
        arrays["tokens"], arrays["tokens_scale"] = _safetensors(members["tokens.safetensors"], scalars)
    embedding = scalars["embedding"]
    return arrays | {
        "frame_time_ns": np.asarray(scalars["frame_time_ns"], dtype=np.int64),
        "pooled": np.asarray(scalars["pooled"], dtype=np.float32),
        "embedding": None if embedding is None else np.asarray(embedding, dtype=np.float32),
    }


def _npy(data: bytes) -> np.ndarray[Any, Any]:
    # The header is parsed as Python, for which CPython 3.11 counts the depth of all threads together: two at once may
    # end in a SystemError (python/cpython#106905).
    with _ONE_HEADER:
        array: np.ndarray[Any, Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return array


def _safetensors(data: bytes, scalars: dict[str, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
    import safetensors.torch
    import torch

    dtype, tensors = scalars["tokens_dtype"], safetensors.torch.load(data)
    tokens = tensors["tokens"]
    if dtype == "int4":
        return unpacked_tokens(tokens.numpy(), tensors["scale"].numpy(), scalars["tokens_shape"])
    bits = tokens.view(torch.uint16) if dtype == "bfloat16" else tokens
    scale = tensors["scale"].numpy() if "scale" in tensors else None
    return bits.numpy().astype(NUMPY_DTYPES[dtype], copy=False), scale
