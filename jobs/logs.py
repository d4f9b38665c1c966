"""Log lines of the command: on stderr, as many as `-v` and `-q` ask for."""

from __future__ import annotations

import argparse
import logging
import sys

from tqdm import tqdm


def add_verbosity_options(parser: argparse.ArgumentParser) -> None:
    """`-v` and `-q`."""
    parser.add_argument("-v", "--verbose", action="store_true", help="show debug messages, with times")
    parser.add_argument("-q", "--quiet", action="store_true", help="show errors only, and no progress")


class StderrHandler(logging.Handler):
    """Writes lines above a progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        tqdm.write(self.format(record), file=sys.stderr)


class MessageFormatter(logging.Formatter):
    """The message by itself; anything but information says what it is."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        text = record.getMessage()
        return text if record.levelno == logging.INFO else f"{record.levelname.lower()}: {text}"


def set_up_logging(*, verbose: bool, quiet: bool) -> None:
    """Send log records to stderr: warnings of every package, information of `jobs`, all of ours with `verbose`."""
    handler = StderrHandler(logging.ERROR if quiet else logging.DEBUG)
    timed = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(timed if verbose else MessageFormatter())
    root = logging.getLogger()
    root.handlers = [old for old in root.handlers if not isinstance(old, StderrHandler)] + [handler]
    for package in ("vtm", "pipeline"):
        logging.getLogger(package).setLevel(logging.DEBUG if verbose else logging.WARNING)
    logging.getLogger("jobs").setLevel(logging.DEBUG if verbose else logging.INFO)
