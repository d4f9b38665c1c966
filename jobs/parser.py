"""The command-line parser: short help first, `--help-all` for the rest, and one line for a mistake."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from typing import Any, NoReturn

from pipeline.errors import SettingsError


class UsageError(SettingsError):
    """The command line cannot be parsed."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Appends defaults where there are any."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        is_said = action.default is not None and action.default is not False
        has_default = is_said and action.default not in (argparse.SUPPRESS, [], ()) and action.nargs != 0
        return text if not has_default or "(default" in text else f"{text} (default: {_shown(action.default)})"


def _shown(default: object) -> str:
    """A default as one would write it, for a format string."""
    text = " ".join(map(str, default)) if isinstance(default, list | tuple) else str(default)
    return text.replace("%", "%%")


class Parser(argparse.ArgumentParser):
    """A parser of one command. Options marked as advanced appear in `--help-all` alone.

    Args:
        prog: The command, such as `vtm extract`.
        description: What it does, in one sentence.
    """

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(
            prog=prog, description=description, allow_abbrev=False, add_help=False, formatter_class=HelpFormatter
        )
        self._advanced: list[tuple[argparse.Action, str]] = []
        self.add_argument("-h", "--help", action="help", help="show this help")
        self._help_all = self.add_argument("--help-all", action=_HelpAll, help=argparse.SUPPRESS)

    def mark_advanced(self, action: argparse.Action) -> None:
        """Leave an option out of the first help."""
        self._help_all.help = "show all options"
        self._advanced.append((action, action.help or ""))
        action.help = argparse.SUPPRESS

    def show_first(self, names: Sequence[str]) -> None:
        """Mark everything but these options as advanced."""
        for action in self._actions:
            if action.option_strings and action.dest not in (*names, "help", argparse.SUPPRESS):
                self.mark_advanced(action)

    def format_full_help(self) -> str:
        """The help with all options."""
        for action, text in self._advanced:
            action.help = text
        try:
            return self.format_help()
        finally:
            for action, _ in self._advanced:
                action.help = argparse.SUPPRESS

    def documented(self) -> list[tuple[argparse.Action, str]]:
        """All arguments and options with their descriptions, without those that show help."""
        advanced = dict(self._advanced)
        shown = [action for action in self._actions if action.dest not in ("help", argparse.SUPPRESS)]
        return [(action, advanced.get(action, action.help or "")) for action in shown]

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse; the error for an unknown option names the nearest known one.

        Raises:
            UsageError: the arguments do not fit.
        """
        options, unknown = self.parse_known_args(arguments)
        if unknown:
            self.error(self._unknown(unknown[0]))
        return options

    def _unknown(self, text: str) -> str:
        if not text.startswith("-"):
            return f"{text} is one argument too many"
        name = text.partition("=")[0]
        known = [option for action in self._actions for option in action.option_strings]
        # The dashes, which all have, would make short names alike.
        close = difflib.get_close_matches(name.lstrip("-"), [option.lstrip("-") for option in known], n=1)
        return f"{name} is not an option" + (f": did you mean --{close[0]}?" if close else "")

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the whole usage.

        Raises:
            UsageError: always.
        """
        words = self.prog.removeprefix("vtm").strip()
        raise UsageError(f"{words + ': ' if words else ''}{message} (`{self.prog} --help` shows the options)")


class _HelpAll(argparse.Action):
    """Print the help with all options and exit."""

    def __init__(self, option_strings: Sequence[str], dest: str, **named: Any) -> None:
        super().__init__(option_strings, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, nargs=0, help=named["help"])

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        assert isinstance(parser, Parser)
        print(parser.format_full_help(), end="")
        parser.exit()
