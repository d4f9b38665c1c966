"""Proof that a run is complete and sound: every instant of every named video in one clip or one recorded failure."""

from __future__ import annotations

import hashlib
import io
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.counted import counted
from pipeline.errors import RunFolderError
from pipeline.failed_range import FailedRange
from pipeline.inputs.named import Named
from pipeline.plan.inputs import read_inputs
from pipeline.plan.plan import Plan
from pipeline.shards.commit_record import ShardManifest
from pipeline.shards.manifest import PLACES
from pipeline.shards.run_folder import RunState, read_state
from pipeline.shards.scan import read_clips
from pipeline.store import Store, Where
from pipeline.values import TokenSet

UNIT_NORM_TOLERANCE = 1e-3
OUR_FILE = re.compile(r"([0-9a-f]{16})\.(?:parquet|tar)")

Remedy = Literal["delete", "adopt", "uncommit", "thin", "extract", "none"]
"""What `vtm repair` does about a finding.

`delete`: it removes a file, which is made again where it is owed. `adopt`: it records a shard whose record is lost, or
removes its files where they are unsound. `uncommit`: it removes a shard with its record. `thin`: it removes one clip of
a shard, which another shard holds as well, or which is unsound. `extract`: nothing is to be removed, something is owed.
`none`: a person decides.
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and what mends it."""

    text: str
    remedy: Remedy = "none"
    subject: str = ""
    """A file's name, or a shard's id."""
    clip_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What verification found."""

    videos: int
    clips: int
    failed_ranges: int
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, a line each."""
        return tuple(finding.text for finding in self.findings)

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong; recorded failures are no wrong."""
        return not self.findings


def verify(out: Where) -> Verdict:
    """Read everything and check it.

    Raises:
        RunFolderError: there is no run at all.
    """
    broken: list[str] = []
    state = read_state(out, broken=broken)
    inputs = read_inputs(state.store, broken=broken)
    findings = [Finding(f"{name}: cannot be read", "delete", name) for name in broken]
    spans: dict[str, list[tuple[int, int]]] = defaultdict(list)
    holders: dict[str, str] = {}
    for manifest in state.manifests.values():
        wrong, clips = _check_shard(state, manifest)
        findings += wrong
        for clip in clips:
            if clip.clip_id in holders:
                text = (
                    f"clip {clip.clip_id} is there 2 times: in shards {holders[clip.clip_id]} and {manifest.shard_id}"
                )
                findings.append(Finding(text, "thin", manifest.shard_id, clip.clip_id))
                continue
            holders[clip.clip_id] = manifest.shard_id
            spans[clip.video_id].append((clip.start_ns, clip.end_ns))
    failures = state.settled.failures
    findings += [Finding(text, "extract") for text in _coverage_problems(state.plan, spans, failures)]
    findings += [Finding(text, "extract") for text in _input_problems(state.plan, inputs)]
    if not inputs:
        findings.append(Finding("no input was ever recorded: run the same `vtm extract` again"))
    findings += _stray_findings(state.store, state.manifests)
    return Verdict(
        videos=len(state.plan.videos), clips=len(holders), failed_ranges=len(failures), findings=tuple(findings)
    )


@dataclass(frozen=True, slots=True)
class _Span:
    """Where a clip is, without its tokens."""

    clip_id: str
    video_id: str
    start_ns: int
    end_ns: int


def _check_shard(state: RunState, manifest: ShardManifest) -> tuple[list[Finding], list[_Span]]:
    """What is wrong with a shard, and the clips that it holds."""
    fingerprint = state.run["fingerprint"]
    if manifest.fingerprint != fingerprint:
        text = f"shard {manifest.shard_id}: fingerprint {manifest.fingerprint}, the run's is {fingerprint}"
        return [Finding(text, "uncommit", manifest.shard_id)], []
    findings: list[Finding] = []
    spans: list[_Span] = []
    for file in manifest.files:
        try:
            data = state.store.get(file.name)
        except FileNotFoundError:
            findings.append(Finding(f"{file.name}: is missing", "extract", file.name))
            continue
        except OSError as error:
            findings.append(Finding(f"{file.name}: cannot be read: {error}"))
            continue
        if len(data) != file.size_bytes:
            text = f"{file.name}: {counted(len(data), 'byte')}, {file.size_bytes} were written"
            findings.append(Finding(text, "delete", file.name))
        elif hashlib.sha256(data).hexdigest() != file.sha256:
            text = f"{file.name}: its content is not what was written (sha256 differs)"
            findings.append(Finding(text, "delete", file.name))
        elif not spans:
            wrong, spans = _check_rows(state, manifest, file.name, data)
            findings += wrong
    return findings, spans


def _check_rows(state: RunState, manifest: ShardManifest, name: str, data: bytes) -> tuple[list[Finding], list[_Span]]:
    tubelet_frames = state.run["encoder"].get("tubelet_frames", 1)
    findings: list[Finding] = []
    spans: list[_Span] = []
    try:
        for clip in read_clips(io.BytesIO(data), name):
            wrong = clip_problems(clip, tubelet_frames)
            findings += [Finding(text, "thin", manifest.shard_id, clip.clip_id) for text in wrong]
            spans.append(_Span(clip.clip_id, clip.video_id, clip.start_ns, clip.end_ns))
    except (OSError, ValueError, KeyError) as error:
        findings.append(Finding(f"{name}: cannot be read: {error}", "uncommit", manifest.shard_id))
    if [span.clip_id for span in spans] != [clip.clip_id for unit in manifest.clips for clip in unit.clips]:
        findings.append(Finding(f"{name}: holds other clips than were committed", "uncommit", manifest.shard_id))
    return findings, spans


def clip_problems(clip: TokenSet, tubelet_frames: int = 1) -> list[str]:
    """What is wrong within one clip."""
    num_tokens = len(clip.tokens)
    num_rows = -(-len(clip.frame_time_ns) // tubelet_frames)
    num_sources = int(np.prod(clip.grid_thw))
    checks = {
        "no frames": len(clip.frame_time_ns) > 0,
        f"T is not the number of frames over {tubelet_frames}, rounded up": clip.grid_thw[0] == num_rows,
        "frame times do not increase": bool(np.all(np.diff(clip.frame_time_ns) > 0)),
        "sizes do not sum to T*H*W": int(clip.sizes.sum()) == num_sources,
        "sizes and tokens differ in number": len(clip.sizes) == num_tokens,
        "the group map has another length than T*H*W": len(clip.group) == num_sources,
        "tokens are not finite": _is_finite(clip),
        "pooled is no unit vector": abs(float(np.linalg.norm(clip.pooled)) - 1) < UNIT_NORM_TOLERANCE,
        "the embedding is no unit vector": clip.embedding is None
        or abs(float(np.linalg.norm(clip.embedding)) - 1) < UNIT_NORM_TOLERANCE,
        "the clip ends before it starts": clip.end_ns > clip.start_ns,
        "the clip id does not fit": clip.clip_id == f"{clip.video_id}-{clip.clip_index:06d}",
    }
    problems = [f"clip {clip.clip_id}: {text}" for text, holds in checks.items() if not holds]
    problems += [f"clip {clip.clip_id}: {text}" for text in tree_problems(clip)]
    if not problems and not np.array_equal(np.bincount(clip.group, minlength=num_tokens), clip.sizes):
        problems.append(f"clip {clip.clip_id}: the group map and the sizes disagree")
    return problems


def tree_problems(clip: TokenSet) -> list[str]:
    """What is wrong with a clip's tree, where it has one."""
    if clip.parent is None and clip.loss is None:
        return []
    if clip.parent is None or clip.loss is None or not len(clip.parent) == len(clip.loss) == len(clip.tokens):
        return ["parents, losses and tokens differ in number"]
    parent_M, loss_M = clip.parent.astype(np.int64), clip.loss
    if parent_M.max() >= len(parent_M):
        return ["a parent is no token"]
    is_root_M = parent_M == np.arange(len(parent_M))
    if is_root_M.sum() != 1 or not np.array_equal(np.isinf(loss_M), is_root_M):
        return ["the tree has not one root, of infinite loss"]
    if not (loss_M[parent_M] > loss_M)[~is_root_M].all():
        return ["losses do not grow along the parents"]
    return []


def _is_finite(clip: TokenSet) -> bool:
    if clip.tokens_dtype in ("int8", "int4"):
        return clip.tokens_scale is not None and bool(np.isfinite(clip.tokens_scale).all())
    if clip.tokens_dtype == "bfloat16":
        exponent = np.uint16(0x7F80)
        return bool(((clip.tokens.astype(np.uint16) & exponent) != exponent).all())
    return bool(np.isfinite(clip.tokens.astype(np.float32)).all())


def _coverage_problems(
    plan: Plan, spans: dict[str, list[tuple[int, int]]], failures: Sequence[FailedRange]
) -> Iterator[str]:
    lost: dict[str, list[FailedRange]] = defaultdict(list)
    for failed in failures:
        lost[failed.video_id].append(failed)
    for video_id, video in plan.videos.items():
        ranges = list(spans.get(video_id, []))
        ranges += [(failed.start_ns, failed.end_ns) for failed in lost[video_id] if failed.start_ns < video.end_ns]
        if not video.num_clips:
            if not lost[video_id]:
                yield f"{video.source.uri}: neither extracted nor recorded as failed"
            continue
        at_ns = video.start_ns
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


def _input_problems(plan: Plan, inputs: Sequence[Named]) -> Iterator[str]:
    """What was named and never looked at: a run that was killed while it scanned."""
    read = {uri for uri, stamp in plan.addresses if not stamp}
    latest = {named.input.uri: named for named in inputs}
    for uri, named in latest.items():
        if (uri, named.input.stamp) not in plan.addresses and uri not in read:
            yield f"{uri}: named by {named.named}, and neither extracted nor recorded as failed"


def _remedy_of_stray(name: str, manifests: Mapping[str, ShardManifest]) -> Remedy:
    match = OUR_FILE.fullmatch(name.rpartition("/")[2])
    if match is None:
        # What no run can have written is somebody's.
        return "none"
    return "delete" if match[1] in manifests else "adopt"


def _stray_findings(store: Store, manifests: Mapping[str, ShardManifest]) -> list[Finding]:
    """Files that plain readers would take for shards, and that were never committed."""
    known = {file.name for manifest in manifests.values() for file in manifest.files}
    names = {entry.name for folder, _ in PLACES.values() for entry in store.list(folder)}
    return [
        Finding(
            f"{name}: was never committed; run the same `vtm extract` again",
            _remedy_of_stray(name, manifests),
            name,
        )
        for name in sorted(names - known)
    ]


__all__ = ["Finding", "RunFolderError", "Verdict", "clip_problems", "verify"]
