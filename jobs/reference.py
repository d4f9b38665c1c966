"""The reference pages, made from the code: `python -m jobs.reference` writes docs/cli.md and docs/api.md."""

from __future__ import annotations

import argparse
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

from jobs.cli import COMMANDS, command_parser

MODULES = ("pipeline", "vtm")
NOTE = "<!-- Made by `python -m jobs.reference`; a test compares it with the code. -->"


def cli_reference() -> str:
    """docs/cli.md: every command with its arguments and options."""
    lines = ["# Commands", NOTE, "", "`vtm COMMAND --help` shows the common options, `--help-all` all of them."]
    for name in COMMANDS:
        parser, _ = command_parser(name)
        lines += ["", f"## vtm {name}", "", str(parser.description), "", "| | |", "| --- | --- |"]
        lines += [_row(action, text) for action, text in parser.documented()]
    return "\n".join(lines) + "\n"


def _row(action: argparse.Action, text: str) -> str:
    value = action.metavar or ("{" + ",".join(map(str, action.choices)) + "}" if action.choices else "")
    words = [", ".join(action.option_strings), *([str(value)] if action.nargs != 0 and value else [])]
    shown = " ".join(words) if action.option_strings else str(value or action.dest)
    return f"| `{_cell(shown)}` | {_cell(text.replace('%%', '%'))} |"


def _cell(text: str) -> str:
    """Text that does not end its cell of a table."""
    return text.replace("|", "\\|")


def api_reference() -> str:
    """docs/api.md: the public names of the packages, with the first line of their docstrings."""
    lines = ["# Python names", NOTE, "", "`help(NAME)` shows arguments, shapes and errors."]
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        lines += ["", f"## {module_name}", "", _first_line(module), "", "| name | |", "| --- | --- |"]
        lines += [f"| `{name}` | {_cell(text)} |" for name, text in _public(module_name)]
    return "\n".join(lines) + "\n"


def _public(module_name: str) -> Iterator[tuple[str, str]]:
    module = importlib.import_module(module_name)
    for name in module.__all__:
        found = getattr(module, name)
        is_documented = inspect.isclass(found) or inspect.isfunction(found)
        yield name, _first_line(found) if is_documented else ""


def _first_line(found: object) -> str:
    return (inspect.getdoc(found) or "").partition("\n\n")[0].replace("\n", " ")


def write_pages(folder: Path) -> None:
    """Write both pages."""
    (folder / "cli.md").write_text(cli_reference(), encoding="utf-8")
    (folder / "api.md").write_text(api_reference(), encoding="utf-8")


if __name__ == "__main__":
    write_pages(Path(__file__).resolve().parents[1] / "docs")
