"""Making again what verification finds wrong, and nothing else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.driver import Listener
from pipeline.run import extract_named
from pipeline.settings import Execution, Recipe, build
from pipeline.shards.commits import read_manifests, uncommit
from pipeline.shards.manifest import PLACES, rewrite_without
from pipeline.shards.run_folder import read_run
from pipeline.store import Store, Where, open_store
from pipeline.store.lease import leased
from pipeline.summary import RunSummary
from pipeline.verify import Finding, Verdict, verify


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
    with leased(store, listener.note):
        before = verify(store)
        remove_damage(store, before.findings)
    if before.is_sound:
        return Repaired(before, before, None)
    formats = formats_of(store) or execution.format
    settings = {name: getattr(execution, name) for name in Execution.__dataclass_fields__} | {
        "format": formats,
        "device": run["encoder"]["device"] if execution.device == "auto" else execution.device,
        "retry_failed": False,
    }
    # Only what is recorded: what else lies at the named places by now is for `vtm extract`.
    summary = extract_named(None, store, build(Recipe, run["settings"]), Execution(**settings), listener)
    return Repaired(before, verify(store), summary)


def remove_damage(store: Store, findings: Sequence[Finding]) -> None:
    """Remove what is wrong, so that it is owed."""
    twice: dict[str, set[str]] = defaultdict(set)
    for finding in findings:
        if finding.remedy == "delete":
            store.delete(finding.subject)
        elif finding.remedy == "thin":
            twice[finding.subject].add(finding.clip_id)
    gone = {finding.subject for finding in findings if finding.remedy == "uncommit"}
    if gone:
        uncommit(store, gone)
    if not twice:
        return
    run = read_run(store)
    manifests = read_manifests(store)
    for shard_id, clip_ids in twice.items():
        if shard_id in manifests:
            rewrite_without(store, manifests[shard_id], run, clip_ids)


def formats_of(store: Store) -> tuple[str, ...]:
    """The formats that a run's shards are written in."""
    names = {file.name.partition("/")[0] for m in read_manifests(store).values() for file in m.files}
    return tuple(form for form, (folder, _) in PLACES.items() if folder in names)
