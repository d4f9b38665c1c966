"""The commit: data files take their names first, the manifest last. A shard exists when its manifest does."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.errors import RunFolderError
from pipeline.shards.publish import publish, sha256_of
from pipeline.values import FailedRange, ShardFile, ShardManifest, TokenSet

SUFFIXES = {"parquet": ".parquet", "webdataset": ".tar"}


def write_shard(
    out: Path,
    shard_id: str,
    clips: Sequence[TokenSet],
    failures: Sequence[FailedRange],
    run: dict[str, Any],
    formats: Sequence[str],
) -> ShardManifest:
    """Write and commit one shard.

    Args:
        out: The run folder.
        shard_id: Names the files, so that a second attempt replaces its own bytes.
        clips: In plan order.
        failures: Ranges of the shard's units that could not be extracted: committed with it, so that a crash
            between the two cannot lose either.
        run: run.json's content.
        formats: `parquet`, `webdataset` or both.
    """
    damaged: Counter[str] = Counter()
    for clip in clips:
        damaged.update({clip.video_id: clip.damaged_frames} if clip.damaged_frames else {})
    files = []
    for name in formats if clips else ():
        path = out / "shards" / f"{shard_id}{SUFFIXES[name]}"
        if name == "parquet":
            from pipeline.shards.parquet import write_parquet

            write_parquet(path, clips, run, run["encoder"]["dim"])
        else:
            # Imported here because webdataset imports torch, a second and 300 MB that a Parquet run does without.
            from pipeline.shards.webdataset import write_webdataset

            write_webdataset(path, clips, run)
        files.append(ShardFile(name=path.name, size_bytes=path.stat().st_size, sha256=sha256_of(path)))
    manifest = ShardManifest(
        shard_id=shard_id,
        fingerprint=run["fingerprint"],
        num_clips=len(clips),
        files=tuple(files),
        failures=tuple(failures),
        damaged_frames=dict(damaged),
    )
    with publish(out / "manifests" / f"{shard_id}.json") as stream:
        stream.write(json.dumps(asdict(manifest), indent=1, sort_keys=True).encode())
    return manifest


def read_manifest(path: Path) -> ShardManifest:
    """The manifest of one shard.

    Raises:
        RunFolderError: it is no manifest.
    """
    try:
        data = json.loads(path.read_bytes())
        data["files"] = tuple(ShardFile(**file) for file in data["files"])
        data["failures"] = tuple(FailedRange(**failed) for failed in data["failures"])
        return ShardManifest(**data)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{path} is no shard manifest ({error}): delete it to extract the shard again") from error


def read_manifests(out: Path) -> dict[str, ShardManifest]:
    """Every committed shard of a run folder, by id, in the order of ids."""
    return {path.stem: read_manifest(path) for path in sorted((out / "manifests").glob("*.json"))}


def is_whole(out: Path, manifest: ShardManifest, formats: Sequence[str]) -> bool:
    """Whether the shard's files are there, in every format asked for."""
    names = {file.name: file.size_bytes for file in manifest.files}
    wanted = {f"{manifest.shard_id}{SUFFIXES[name]}" for name in formats} if manifest.num_clips else set()
    sizes = {name: (out / "shards" / name) for name in names}
    present = all(path.is_file() and path.stat().st_size == names[name] for name, path in sizes.items())
    return present and wanted <= set(names)
