"""Writing a shard: its files first, each hashed while it is written, the record of its commit last."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.failed_range import FailedRange
from pipeline.plan.units import Unit
from pipeline.shards.commit_record import ShardFile, ShardManifest
from pipeline.shards.commits import commit, read_commit
from pipeline.shards.scan import read_shard
from pipeline.store import Store, Where, open_store
from pipeline.values import TokenSet

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
    """Write and commit one shard.

    What is committed under its id already stays: clips that are not among these ones join them, and so do formats.

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
    held = _committed(store, shard_id, run)
    if held is not None:
        if _holds_more(store, held, clips, formats):
            return held if set(failures) <= set(held.failures) else _with_failures(store, held, failures)
        clips = [*clips, *_others(store, held, clips)]
        formats = [form for form in PLACES if form in formats or _has_format(held, form)]
    manifest = ShardManifest(
        shard_id=shard_id,
        fingerprint=run["fingerprint"],
        num_clips=len(clips),
        files=tuple(_write_file(store, shard_id, form, clips, run) for form in formats if clips),
        failures=tuple(failures),
        damaged_frames=damaged_of(clips),
        clips=units_of(clips),
        committed_s=time.time(),
    )
    commit(store, manifest)
    return manifest


def add_formats(store: Store, manifest: ShardManifest, run: dict[str, Any], formats: Sequence[str]) -> ShardManifest:
    """Make the files that a shard lacks from one that it has: nothing is decoded or encoded again.

    A file of a format that is not asked for is made again where it is damaged; where somebody removed it, it is
    forgotten.

    Raises:
        OSError, ValueError, KeyError: no file of it can be read, or none can be written.
    """
    whole = _whole_files(store, manifest)
    clips = list(read_shard(store, whole[0].name))
    missing = []
    for form in PLACES:
        name = file_name(manifest.shard_id, form)
        is_damaged = _has_format(manifest, form) and store.entry(name) is not None
        if name not in {file.name for file in whole} and (form in formats or is_damaged):
            missing.append(form)
    made = [_write_file(store, manifest.shard_id, form, clips, run) for form in missing]
    return _recommitted(store, manifest, sorted([*whole, *made], key=lambda file: file.name))


def rewrite_without(store: Store, manifest: ShardManifest, run: dict[str, Any], clip_ids: set[str]) -> ShardManifest:
    """Make a shard's files again without some clips; as it was where none of its files is whole."""
    whole = _whole_files(store, manifest)
    if not whole:
        return manifest
    forms = [form for form in PLACES if _has_format(manifest, form)]
    clips = [clip for clip in read_shard(store, whole[0].name) if clip.clip_id not in clip_ids]
    files = [_write_file(store, manifest.shard_id, form, clips, run) for form in forms if clips]
    if not clips:
        for file in manifest.files:
            store.delete(file.name)
    return _recommitted(store, manifest, files, clips)


def _recommitted(
    store: Store, manifest: ShardManifest, files: Sequence[ShardFile], clips: Sequence[TokenSet] | None = None
) -> ShardManifest:
    changed = replace(manifest, files=tuple(files))
    if clips is not None:
        changed = replace(changed, num_clips=len(clips), damaged_frames=damaged_of(clips), clips=units_of(clips))
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


def _committed(store: Store, shard_id: str, run: dict[str, Any]) -> ShardManifest | None:
    """The record of a shard of this run, of which some file is there."""
    if all(store.entry(file_name(shard_id, form)) is None for form in PLACES):
        return None
    held = read_commit(store, shard_id)
    return held if held is not None and held.fingerprint == run["fingerprint"] else None


def _has_format(manifest: ShardManifest, form: str) -> bool:
    return any(file.name == file_name(manifest.shard_id, form) for file in manifest.files)


def _holds_more(store: Store, held: ShardManifest, clips: Sequence[TokenSet], formats: Sequence[str]) -> bool:
    """Whether what is committed has every clip of the new shard and others beside, in these formats."""
    if held.num_clips <= len(clips) or not all(_has_format(held, form) for form in formats):
        return False
    if not {(clip.video_id, clip.clip_index) for clip in clips} <= {c for unit in held.clips for c in unit.clips}:
        return False
    return len(_whole_files(store, held)) == len(held.files)


def _with_failures(store: Store, held: ShardManifest, failures: Sequence[FailedRange]) -> ShardManifest:
    """A shard of which nothing more could be made: what is lost beside its clips is recorded."""
    changed = replace(held, failures=tuple(dict.fromkeys((*held.failures, *failures))))
    commit(store, changed)
    return changed


def _whole_files(store: Store, manifest: ShardManifest) -> list[ShardFile]:
    """Those of a shard's files that have the size that was written."""
    sizes = {file.name: entry.size_bytes for file in manifest.files if (entry := store.entry(file.name)) is not None}
    return [file for file in manifest.files if sizes.get(file.name) == file.size_bytes]


def _others(store: Store, held: ShardManifest, clips: Sequence[TokenSet]) -> list[TokenSet]:
    """Committed clips that are not among these, as far as a file of theirs can be read."""
    new = {(clip.video_id, clip.clip_index) for clip in clips}
    if not {clip for unit in held.clips for clip in unit.clips} - new:
        return []
    for file in _whole_files(store, held):
        try:
            return [clip for clip in read_shard(store, file.name) if (clip.video_id, clip.clip_index) not in new]
        except (OSError, ValueError, KeyError):
            continue
    return []


def damaged_of(clips: Sequence[TokenSet]) -> dict[str, int]:
    """Damaged frames by video, of those that have any."""
    damaged: Counter[str] = Counter()
    for clip in clips:
        damaged[clip.video_id] += clip.damaged_frames
    return {video_id: count for video_id, count in damaged.items() if count}


def units_of(clips: Sequence[TokenSet]) -> tuple[Unit, ...]:
    """Clips, in order, as runs of consecutive ones."""
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
