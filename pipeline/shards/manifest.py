"""Writing a shard: its files first, each hashed while it is written, the record of its commit last."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.plan.units import Unit
from pipeline.shards.commits import commit, read_commit
from pipeline.shards.scan import read_shard
from pipeline.store import Store, Where, open_store
from pipeline.values import FailedRange, ShardFile, ShardManifest, TokenSet

PLACES = {"parquet": ("shards", ".parquet"), "webdataset": ("webdataset", ".tar")}
"""A folder a format, so that any reader can be pointed at one."""


def file_name(shard_id: str, form: str) -> str:
    """Where a shard's file of a format is."""
    folder, suffix = PLACES[form]
    return f"{folder}/{shard_id}{suffix}"


def write_shard(
    out: Where,
    shard_id: str,
    clips: Sequence[TokenSet],
    failures: Sequence[FailedRange],
    run: dict[str, Any],
    formats: Sequence[str],
) -> ShardManifest:
    """Write and commit one shard; one that is committed is never replaced by less.

    Args:
        out: Where the run lives.
        shard_id: Names the files, so that a second attempt replaces its own bytes.
        clips: In plan order.
        failures: Ranges of the shard's units that could not be extracted: committed with it, so that a crash
            between the two cannot lose either.
        run: run.json's content.
        formats: `parquet`, `webdataset` or both.

    Raises:
        OSError: it cannot be written.
    """
    store = open_store(out)
    held = read_commit(store, shard_id)
    if held is not None and _holds_more(store, held, clips, run):
        return held
    damaged: Counter[str] = Counter()
    for clip in clips:
        damaged.update({clip.video_id: clip.damaged_frames} if clip.damaged_frames else {})
    manifest = ShardManifest(
        shard_id=shard_id,
        fingerprint=run["fingerprint"],
        num_clips=len(clips),
        files=tuple(_write_file(store, shard_id, form, clips, run) for form in formats if clips),
        failures=tuple(failures),
        damaged_frames=dict(damaged),
        clips=_runs(clips),
        committed_s=time.time(),
    )
    commit(store, manifest)
    return manifest


def add_formats(store: Store, manifest: ShardManifest, run: dict[str, Any], formats: Sequence[str]) -> ShardManifest:
    """Make the files that a shard lacks from one that it has: nothing is decoded or encoded again.

    Raises:
        OSError, ValueError, KeyError: no file of it can be read, or none can be written.
    """
    sizes = {file.name: entry.size_bytes for file in manifest.files if (entry := store.entry(file.name)) is not None}
    whole = [file for file in manifest.files if sizes.get(file.name) == file.size_bytes]
    held = {file.name for file in whole}
    missing = [form for form in formats if file_name(manifest.shard_id, form) not in held]
    lost = [
        form for form in PLACES if form not in formats and file_name(manifest.shard_id, form) in sizes.keys() - held
    ]
    clips = list(read_shard(store, whole[0].name))
    made = [_write_file(store, manifest.shard_id, form, clips, run) for form in [*missing, *lost]]
    return _recommitted(store, manifest, sorted([*whole, *made], key=lambda file: file.name))


def rewrite_without(store: Store, manifest: ShardManifest, run: dict[str, Any], clip_ids: set[str]) -> ShardManifest:
    """Make a shard's files again without some clips, which other shards hold."""
    forms = [form for form in PLACES if any(f.name == file_name(manifest.shard_id, form) for f in manifest.files)]
    clips = [clip for clip in read_shard(store, manifest.files[0].name) if clip.clip_id not in clip_ids]
    files = [_write_file(store, manifest.shard_id, form, clips, run) for form in forms if clips]
    if not clips:
        for file in manifest.files:
            store.delete(file.name)
    return _recommitted(store, manifest, files, clips)


def _recommitted(
    store: Store, manifest: ShardManifest, files: Sequence[ShardFile], clips: Sequence[TokenSet] | None = None
) -> ShardManifest:
    changed = ShardManifest(
        shard_id=manifest.shard_id,
        fingerprint=manifest.fingerprint,
        num_clips=manifest.num_clips if clips is None else len(clips),
        files=tuple(files),
        failures=manifest.failures,
        damaged_frames=manifest.damaged_frames,
        clips=manifest.clips if clips is None else _runs(clips),
        committed_s=manifest.committed_s,
    )
    commit(store, changed)
    return changed


def _write_file(store: Store, shard_id: str, form: str, clips: Sequence[TokenSet], run: dict[str, Any]) -> ShardFile:
    name = file_name(shard_id, form)
    with store.writer(name) as stream:
        if form == "parquet":
            from pipeline.shards.parquet import write_parquet

            write_parquet(stream, clips, run, run["encoder"]["dim"])
        else:
            # Imported here because webdataset imports torch, a second and 300 MB that a Parquet run does without.
            from pipeline.shards.webdataset import write_webdataset

            write_webdataset(stream, clips, run)
    return ShardFile(name=name, size_bytes=stream.size_bytes, sha256=stream.sha256)


def _holds_more(store: Store, held: ShardManifest, clips: Sequence[TokenSet], run: dict[str, Any]) -> bool:
    """Whether what is committed has every clip of the new shard and others beside."""
    if held.fingerprint != run["fingerprint"] or held.num_clips <= len(clips):
        return False
    if not {(clip.video_id, clip.clip_index) for clip in clips} <= {c for unit in held.clips for c in unit.clips}:
        return False
    entries = [(file, store.entry(file.name)) for file in held.files]
    return all(entry is not None and entry.size_bytes == file.size_bytes for file, entry in entries)


def _runs(clips: Sequence[TokenSet]) -> tuple[Unit, ...]:
    runs: list[Unit] = []
    for clip in clips:
        last = runs[-1] if runs else None
        if last is not None and (last.video_id, last.first + last.count) == (clip.video_id, clip.clip_index):
            runs[-1] = Unit(last.video_id, last.first, last.count + 1)
        else:
            runs.append(Unit(clip.video_id, clip.clip_index, 1))
    return tuple(runs)


def is_whole(sizes: Mapping[str, int], manifest: ShardManifest, formats: Sequence[str]) -> bool:
    """Whether a shard's files are there, in every format asked for, by the sizes of what a store lists."""
    names = {file.name for file in manifest.files}
    wanted = {file_name(manifest.shard_id, form) for form in formats} if manifest.num_clips else set()
    return wanted <= names and all(sizes.get(file.name) == file.size_bytes for file in manifest.files)


def has_a_whole_file(sizes: Mapping[str, int], manifest: ShardManifest) -> bool:
    """Whether the tokens of a shard are there in some format."""
    return any(sizes.get(file.name) == file.size_bytes for file in manifest.files)


def shard_sizes(store: Store) -> dict[str, int]:
    """Sizes of all files of shards, by name: one listing."""
    return {entry.name: entry.size_bytes for folder, _ in PLACES.values() for entry in store.list(folder)}
