"""The settings as command-line options, made from the fields of `Recipe` and `Execution` and their docstrings.

A setting is described once, where it is defined, and has one name in TOML and on the command line.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import sys
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from jobs.parser import Parser
from pipeline.errors import SettingsError
from pipeline.read_settings import build, load_toml
from pipeline.settings import AMOUNTS, Execution, Recipe

COMMON = frozenset({"encoder", "keep", "fidelity", "fps", "format", "workers", "gpus", "address", "limit"})
"""Settings of the first help; the others are listed by `--help-all`."""
METAVARS = {
    "encoder": "DIR|ID",
    "fps": "RATE",
    "tokens_per_clip": "M",
    "alpha_background": "RRGGBB",
    "format": "LIST",
    "scorer": "DIR",
    "reuse_levels": "LEVELS",
    "fidelity": "COSINE",
    "address": "URL",
}
UNIT_METAVARS = {"_s": "SECONDS", "_mb": "MB", "_frames": "FRAMES", "_clips": "CLIPS"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One field of `Recipe` or `Execution`, as an option."""

    name: str
    kind: type
    choices: tuple[str, ...]
    default: Any
    text: str

    @property
    def option(self) -> str:
        """As on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def metavar(self) -> str:
        """What a value of it is called."""
        if self.choices and self.name not in METAVARS:
            return "{" + ",".join(self.choices) + "}"
        for unit, metavar in UNIT_METAVARS.items():
            if self.name.endswith(unit):
                return metavar
        named = {int: "N", float: "SHARE"}.get(self.kind, self.name.upper().replace("_", "-"))
        return METAVARS.get(self.name, named)

    @property
    def help(self) -> str:
        """Description and default, for the option's help."""
        text = " ".join(self.text.replace("`", "").split()).rstrip(".")
        text = text[0].lower() + text[1:] if text[1:2].islower() else text
        if self.default is None or self.kind is bool:
            return text
        shown = ",".join(self.default) if isinstance(self.default, tuple) else self.default
        shown = f"{shown:g}" if self.kind is float else shown
        return f"{text} (default: {shown})"


@cache
def settings_in(cls: type) -> tuple[Setting, ...]:
    """The settings of a class, in its order."""
    hints, texts = get_type_hints(cls), _docstrings(cls)
    return tuple(
        Setting(
            name=field.name,
            kind=_kind(hints[field.name]),
            choices=_choices(hints[field.name]),
            default=None if field.default is MISSING else field.default,
            text=texts.get(field.name, ""),
        )
        for field in fields(cls)
    )


def _docstrings(cls: type) -> dict[str, str]:
    """The docstring below each field: Python keeps them in the source alone."""
    tree = ast.parse(inspect.getsource(sys.modules[cls.__module__]))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == cls.__name__)
    return dict(_documented(body))


def _documented(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for field, below in pairwise(body):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            yield field.target.id, str(below.value.value)


def _kind(hint: Any) -> type:
    """The type that a value is parsed to; tuples and rates are parsed by `build`."""
    if isinstance(hint, UnionType):
        hint = next(part for part in get_args(hint) if part is not type(None))
    return hint if hint in (int, float, bool) else Fraction if hint is Fraction else str


def _choices(hint: Any) -> tuple[str, ...]:
    if get_origin(hint) is tuple:
        hint = get_args(hint)[0]
    return get_args(hint) if get_origin(hint) is Literal else ()


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """Options that decide what is written; an option that is not given is None."""
    _add(parser, "what to extract", Recipe)


def add_execution_options(parser: argparse.ArgumentParser) -> None:
    """Options that do not change the bytes of a clip."""
    _add(parser, "how to run", Execution)


def add_config_option(parser: argparse.ArgumentParser) -> None:
    """`--config`, which names a recipe."""
    parser.add_argument("--config", metavar="FILE.toml", help="read settings from a recipe; options given here win")


def _add(parser: argparse.ArgumentParser, title: str, cls: type) -> None:
    group = parser.add_argument_group(title)
    for setting in settings_in(cls):
        named: dict[str, Any] = {"help": setting.help.replace("%", "%%"), "default": None}
        if setting.kind is bool:
            named |= {"action": "store_true"}
        else:
            named |= {"metavar": setting.metavar}
            if setting.kind in (int, float):
                named |= {"type": setting.kind}
        action = group.add_argument(setting.option, **named)
        if isinstance(parser, Parser) and setting.name not in COMMON:
            parser.mark_advanced(action)


def settings_of(options: argparse.Namespace) -> tuple[list[str], str | None, Recipe, Execution]:
    """Inputs, where the run is stored, recipe and execution: options override a recipe file, which overrides defaults.

    Raises:
        SettingsError: a setting is unknown or cannot be carried out.
    """
    values: dict[str, Any] = {}
    if options.config:
        values = load_toml(Path(options.config))
    given = {name: value for name, value in vars(options).items() if value is not None}
    if any(name in given for name in AMOUNTS) or given.get("strategy") == "none":
        values = {name: value for name, value in values.items() if name not in AMOUNTS}
    values |= {name: value for name, value in given.items() if name not in ("inputs", "config", "run")}
    out = values.get("out")
    try:
        inputs = list(options.inputs) or [str(text) for text in _listed(values.get("inputs", []))]
        return inputs, str(out) if out else None, build(Recipe, values), build(Execution, values)
    except TypeError as error:
        raise SettingsError(f"a setting has the wrong type: {error}") from error


def _listed(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) else list(value)


def execution_of(options: argparse.Namespace) -> Execution:
    """The execution of a command that has no recipe.

    Raises:
        SettingsError: a setting is unknown or cannot be carried out.
    """
    values = load_toml(Path(options.config)) if options.config else {}
    return build(Execution, values | {name: value for name, value in vars(options).items() if value is not None})
