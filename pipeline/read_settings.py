"""Settings as people write them: a TOML recipe, a mapping of names to values, a frame rate."""

from __future__ import annotations

import sys
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import SettingsError
from pipeline.nearest_name import nearest
from pipeline.settings import Execution, Recipe
from pipeline.settings_rules import require

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")
LISTS = ("inputs", "format")
LOOSE = ("out", "fps")


def load_toml(path: Path) -> dict[str, Any]:
    """The settings of a TOML recipe, names as on the command line with `_` or `-`.

    Raises:
        SettingsError: the file cannot be read, or holds a name that is not a setting.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"--config {path} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"--config {path} cannot be read as TOML: {error}") from error
    # `vtm submit` reads that table.
    settings = {name.replace("-", "_"): value for name, value in data.items() if name != "cluster"}
    known = sorted({f.name for cls in (Recipe, Execution) for f in fields(cls)} | {"inputs", "out"})
    for name, value in settings.items():
        if name not in known:
            hint = f"{nearest(name, known)}known are {', '.join(known)}"
            raise SettingsError(f"--config {path}: {name} is not a setting: {hint}")
        _require_kind(f"--config {path}", name, value)
    return settings


def _require_kind(where: str, name: str, value: object) -> None:
    """Refuse a value of another kind than the setting's, with its name.

    Raises:
        SettingsError: it is text where a number is wanted, or the like.
    """
    if name in LISTS:
        fits = isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))
        wanted = "text or a list of texts"
    elif name in LOOSE:
        fits, wanted = isinstance(value, str | int | float) and not isinstance(value, bool), "text or a number"
    else:
        wanted, kinds = _kind_of(name)
        fits = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
    require(fits, f"{where}: {name.replace('_', '-')} = {value!r} has the wrong kind of value: write {wanted}")


def _kind_of(name: str) -> tuple[str, tuple[type, ...]]:
    """What a setting is written as, and what it is read as."""
    annotation = next(str(f.type) for cls in (Recipe, Execution) for f in fields(cls) if f.name == name)
    for text, wanted, kinds in (
        ("int", "a whole number, without quotes", (int,)),
        ("float", "a number, without quotes", (int, float)),
        ("bool", "true or false", (bool,)),
    ):
        if annotation.split(" |")[0] == text:
            return wanted, kinds
    return "text, in quotes", (str,)


def build(cls: type[T], values: dict[str, Any]) -> T:
    """A settings class from a mapping that may hold other names as well; text becomes fractions and tuples."""
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    chosen = {k: v for k, v in values.items() if k in known and v is not None}
    if "fps" in chosen:
        chosen["fps"] = parse_fps(chosen["fps"])
    if "format" in chosen:
        parts = chosen["format"]
        chosen["format"] = tuple(parts.split(",")) if isinstance(parts, str) else tuple(parts)
    return cls(**chosen)


def parse_fps(text: object) -> Fraction:
    """`1`, `0.5` or `30000/1001` as an exact fraction.

    Raises:
        SettingsError: it is none of these.
    """
    try:
        return Fraction(str(text))
    except (ValueError, ZeroDivisionError) as error:
        raise SettingsError(f"--fps {text} is not a frame rate: give a number such as 1, 0.5 or 30000/1001") from error
