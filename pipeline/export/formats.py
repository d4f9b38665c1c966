"""One call that exports a cache to a format."""

from __future__ import annotations

import importlib
from dataclasses import fields
from pathlib import Path
from typing import Any

from pipeline.cache.token_cache import TokenCache
from pipeline.errors import RunFolderError, SettingsError
from pipeline.export import FORMATS
from pipeline.export.target import Exported, ExportOptions, open_folder, safe_name, write_about
from pipeline.store import Where


def export(run: Where, name: str, out: Path, options: ExportOptions, **budget: Any) -> Exported:
    """Write a run's clips in a format.

    Args:
        run: A run folder, or the address of one.
        name: One of `FORMATS`.
        out: A folder, new or empty.
        options: What the format takes of them.
        budget: `keep`, `tokens`, `fidelity` or `max_loss`, and `lloyd_steps`, as for `TokenCache`.

    Raises:
        SettingsError: an option or a limit of the reader stands in the way; nothing was written then.
        RunFolderError: there is no run, or it holds no clips.
    """
    if name not in FORMATS:
        raise SettingsError(f"--to {name} is no format: choose one of {', '.join(FORMATS)}")
    module = importlib.import_module(f"pipeline.export.{name.replace('-', '_')}")
    _check_options(name, options, module.TAKES)
    cache = TokenCache(run, arrays=getattr(module, "ARRAYS", "numpy"), **budget)
    if not len(cache):
        raise RunFolderError(f"{cache.path} holds no clips to export: `vtm status` says how far its run is")
    folder = open_folder(out)
    try:
        exported: Exported = module.export(cache, folder, options)
    except SettingsError:
        if not any(folder.iterdir()):
            folder.rmdir()
        raise
    write_about(folder, cache, exported)
    return exported


def _check_options(name: str, options: ExportOptions, takes: tuple[str, ...]) -> None:
    if options.step_s is not None and not 0 < options.step_s < float("inf"):
        raise SettingsError(f"--step-s {options.step_s} must be above 0: it is the seconds from row to row")
    if options.name_by not in ("id", "file"):
        raise SettingsError(f"--name-by {options.name_by} is unknown: choose id or file")
    if options.collection != safe_name(options.collection):
        raise SettingsError(f"--collection {options.collection} must be of letters, digits, dot, dash and underscore")
    for field in fields(ExportOptions):
        if getattr(options, field.name) != field.default and field.name not in takes:
            option = field.name.replace("_", "-")
            others = f"it takes --{', --'.join(t.replace('_', '-') for t in takes)}" if takes else "it takes no options"
            raise SettingsError(f"--to {name} has no use for --{option}: {others}")
