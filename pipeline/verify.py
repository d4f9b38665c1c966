"""Proof that a run folder is complete and sound: every instant of every video in one clip or one recorded failure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import RunFolderError
from pipeline.plan.table import Plan
from pipeline.shards.publish import TEMPORARY_PREFIX, sha256_of
from pipeline.shards.run_folder import read_state
from pipeline.shards.scan import read_shard
from pipeline.values import FailedRange, ShardManifest, TokenSet

UNIT_NORM_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What verification found."""

    videos: int
    clips: int
    failed_ranges: int
    problems: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong; recorded failures are no wrong."""
        return not self.problems


def verify(out: Path) -> Verdict:
    """Read everything and check it.

    Raises:
        RunFolderError: the folder holds no run at all.
    """
    state = read_state(out)
    run, plan, manifests, failures = state.run, state.plan, state.manifests, state.settled.failures
    problems: list[str] = []
    spans: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    seen: Counter[str] = Counter()
    for manifest in manifests.values():
        problems += _shard_problems(out, manifest, run["fingerprint"])
        for name in _data_files(manifest)[:1]:
            try:
                for clip in read_shard(out / "shards" / name):
                    seen[clip.clip_id] += 1
                    spans[clip.video_id].append((clip.start_ns, clip.end_ns, clip.clip_index))
                    problems += clip_problems(clip, run["encoder"].get("frames_per_token_row", 1))
            except (OSError, ValueError, KeyError) as error:
                problems.append(f"{name}: cannot be read: {error}")
    problems += [f"clip {clip_id} is there {count} times" for clip_id, count in seen.items() if count > 1]
    problems += list(_coverage_problems(plan, spans, failures))
    problems += _stray_problems(out, manifests)
    return Verdict(videos=len(plan.videos), clips=len(seen), failed_ranges=len(failures), problems=tuple(problems))


def _data_files(manifest: ShardManifest) -> list[str]:
    return sorted(file.name for file in manifest.files)


def _shard_problems(out: Path, manifest: ShardManifest, fingerprint: str) -> list[str]:
    problems = []
    if manifest.fingerprint != fingerprint:
        problems.append(f"shard {manifest.shard_id}: fingerprint {manifest.fingerprint}, the run's is {fingerprint}")
    for file in manifest.files:
        path = out / "shards" / file.name
        if not path.is_file():
            problems.append(f"{file.name}: is missing")
        elif path.stat().st_size != file.size_bytes:
            problems.append(f"{file.name}: {path.stat().st_size} bytes, {file.size_bytes} were written")
        elif sha256_of(path) != file.sha256:
            problems.append(f"{file.name}: its content is not what was written (sha256 differs)")
    return problems


def clip_problems(clip: TokenSet, frames_per_token_row: int = 1) -> list[str]:
    """What is wrong within one clip."""
    num_tokens = len(clip.tokens)
    num_rows = -(-len(clip.frame_time_ns) // frames_per_token_row)
    num_sources = int(np.prod(clip.grid_thw))
    checks = {
        "no frames": len(clip.frame_time_ns) > 0,
        f"T is not the number of frames over {frames_per_token_row}, rounded up": clip.grid_thw[0] == num_rows,
        "frame times do not increase": bool(np.all(np.diff(clip.frame_time_ns) > 0)),
        "sizes do not sum to T*H*W": int(clip.sizes.sum()) == num_sources,
        "sizes and tokens differ in number": len(clip.sizes) == num_tokens,
        "the group map has another length than T*H*W": len(clip.group) == num_sources,
        "tokens are not finite": _is_finite(clip),
        "pooled is no unit vector": abs(float(np.linalg.norm(clip.pooled)) - 1) < UNIT_NORM_TOLERANCE,
        "the clip ends before it starts": clip.end_ns > clip.start_ns,
        "the clip id does not fit": clip.clip_id == f"{clip.video_id}-{clip.clip_index:06d}",
    }
    problems = [f"clip {clip.clip_id}: {text}" for text, holds in checks.items() if not holds]
    if not problems and not np.array_equal(np.bincount(clip.group, minlength=num_tokens), clip.sizes):
        problems.append(f"clip {clip.clip_id}: the group map and the sizes disagree")
    return problems


def _is_finite(clip: TokenSet) -> bool:
    if clip.tokens_dtype == "int8":
        return clip.tokens_scale is not None and bool(np.isfinite(clip.tokens_scale).all())
    if clip.tokens_dtype == "bfloat16":
        exponent = np.uint16(0x7F80)
        return bool(((clip.tokens.astype(np.uint16) & exponent) != exponent).all())
    return bool(np.isfinite(clip.tokens.astype(np.float32)).all())


def _coverage_problems(
    plan: Plan, spans: dict[str, list[tuple[int, int, int]]], failures: list[FailedRange]
) -> Iterator[str]:
    lost: dict[str, list[FailedRange]] = defaultdict(list)
    for failed in failures:
        lost[failed.video_id].append(failed)
    for video_id, video in plan.videos.items():
        ranges = [(start, end) for start, end, _ in spans.get(video_id, [])]
        ranges += [(failed.start_ns, failed.end_ns) for failed in lost[video_id] if failed.start_ns < video.end_ns]
        if not video.num_clips:
            if not lost[video_id]:
                yield f"{video.source.uri}: neither extracted nor recorded as failed"
            continue
        at_ns = 0
        for start_ns, end_ns in sorted(ranges):
            if start_ns > at_ns:
                yield f"{video.source.uri}: nothing from {at_ns / 1e9:.3f} to {start_ns / 1e9:.3f} s"
            elif start_ns < at_ns:
                yield f"{video.source.uri}: {start_ns / 1e9:.3f} to {at_ns / 1e9:.3f} s is there twice"
            at_ns = max(at_ns, end_ns)
        if at_ns < video.end_ns:
            yield f"{video.source.uri}: nothing from {at_ns / 1e9:.3f} to {video.end_ns / 1e9:.3f} s"
    for video_id in spans.keys() - plan.videos.keys():
        yield f"video {video_id}: has clips, but is not in the plan"


def _stray_problems(out: Path, manifests: dict[str, ShardManifest]) -> list[str]:
    """Files that plain readers would take for shards, and that were never committed."""
    known = {file.name for manifest in manifests.values() for file in manifest.files}
    folder = out / "shards"
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return [
        f"{name}: was never committed; run the same `vtm extract` again"
        for name in sorted(names - known)
        if not name.startswith(TEMPORARY_PREFIX)
    ]


__all__ = ["RunFolderError", "Verdict", "clip_problems", "verify"]
