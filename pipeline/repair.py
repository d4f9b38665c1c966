"""Making again what verification finds wrong, and nothing else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.adopt import adopt
from pipeline.driver import Listener
from pipeline.encode.describe import check_weights
from pipeline.read_settings import build
from pipeline.run import extract_listed
from pipeline.run_description import EncoderDescription
from pipeline.settings import Execution, Recipe
from pipeline.shards.commits import read_manifests, uncommit
from pipeline.shards.manifest import PLACES, rewrite_without
from pipeline.shards.run_folder import read_run
from pipeline.store import Store, Where, open_store
from pipeline.store.lease import leased
from pipeline.summary import RunSummary
from pipeline.verify import Finding, Verdict, verify

ROUNDS = 2
"""Where a table of the plan is gone, clips that were committed may be planned into other shards: then they are there
twice, which the second round mends."""


@dataclass(frozen=True, slots=True)
class Repaired:
    """What was wrong, and what is now."""

    before: Verdict
    after: Verdict
    summary: RunSummary | None
    """Of the extraction that it took; None where nothing was wrong."""


def repair(out: Where, execution: Execution, listener: Listener) -> Repaired:
    """Verify, remove what is damaged, extract what is owed, and verify again.

    Args:
        out: Where the run lives.
        execution: How to go about it; the formats are the run's own.
        listener: Told of progress.

    Raises:
        RunFolderError: there is no run.
        SettingsError, EngineError, StoreError: as `extract` says.
    """
    store = open_store(out)
    run = read_run(store)
    before = verify(store)
    if before.is_sound:
        return Repaired(before, before, None)
    settings = {name: getattr(execution, name) for name in Execution.__dataclass_fields__} | {
        "format": formats_of(store) or execution.format,
        "device": run["encoder"]["device"] if execution.device == "auto" else execution.device,
        "retry_failed": False,
    }
    execution, recipe = Execution(**settings), build(Recipe, run["settings"])
    # Nothing is removed before it is known that it can be made again.
    check_weights(recipe, EncoderDescription(**run["encoder"]))
    after, summary = before, None
    for _ in range(ROUNDS):
        with leased(store, listener.note):
            remove_damage(store, after.findings)
        # Only what is recorded: what else lies at the named places by now is for `vtm extract`.
        summary = extract_listed(None, store, recipe, execution, listener)
        after = verify(store)
        if all(finding.remedy in ("extract", "none") for finding in after.findings):
            break
    return Repaired(before, after, summary)


def remove_damage(store: Store, findings: Sequence[Finding]) -> None:
    """Remove what is wrong, so that it is owed; record again what is sound and lacks its record."""
    run = read_run(store)
    twice: dict[str, set[str]] = defaultdict(set)
    for finding in findings:
        if finding.remedy == "delete":
            store.delete(finding.subject)
        elif finding.remedy == "thin":
            twice[finding.subject].add(finding.clip_id)
    # After unreadable records are gone, which have the names of those that adopting writes.
    for name in sorted(finding.subject for finding in findings if finding.remedy == "adopt"):
        if not adopt(store, PurePosixPath(name).stem, run):
            store.delete(name)
    gone = {finding.subject for finding in findings if finding.remedy == "uncommit"}
    if gone:
        uncommit(store, gone)
    if not twice:
        return
    manifests = read_manifests(store)
    for shard_id, clip_ids in twice.items():
        if shard_id in manifests:
            rewrite_without(store, manifests[shard_id], run, clip_ids)


def formats_of(store: Store) -> tuple[str, ...]:
    """The formats that a run's shards are written in."""
    names = {file.name.partition("/")[0] for m in read_manifests(store, broken=[]).values() for file in m.files}
    return tuple(form for form, (folder, _) in PLACES.items() if folder in names)
