"""The command `vtm`: finds the sub-command's file, parses, runs, and turns errors into one line and an exit code.

Exit codes: 0 all done; 3 finished, but some input failed and is recorded; 2 wrong usage, settings or input;
1 anything else.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

COMMANDS = {
    "extract": "extract videos into token shards; resumes by itself",
    "plan": "say what a run would do, from headers alone",
    "verify": "prove that a run folder is complete and sound",
    "repair": "make again what verify finds wrong, and only that",
    "status": "say how far a run is, from its store alone",
    "inspect": "summarise a run folder",
    "replay": "decode and encode one clip of a run again, to look into a failure",
    "merge": "merge the clips of each video into tokens of the whole video",
    "budget": "say what budgets of tokens keep and cost: of videos before a run, or of a run",
    "search": "find the clips and moments most like a picture, a clip, a span or a text",
    "export": "write a cache in the layout of another reader",
    "report": "make a page that shows what was merged",
    "train": "train learnable merging on token caches",
    "eval": "evaluate a trained network",
    "predict": "predict every video of a cache by a trained network",
    "bench": "measure, with peers in the same run",
    "assets": "fetch the demo's film and weights",
}
OK, FAILED, USAGE, PARTIAL = 0, 1, 2, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    # Decoders share the cores with the encoder's threads, which would burn them while they wait for each other.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser(arguments)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except (ValueError, OSError, _extract_error()) as error:
        return _report(error)
    except KeyboardInterrupt:
        print("vtm: interrupted; what is committed stands, the same command goes on from there", file=sys.stderr)
        return 130


def _extract_error() -> type[Exception]:
    from pipeline.errors import ExtractError

    return ExtractError


def _report(error: Exception) -> int:
    """One line on stderr. Errors about what was asked are usage; the others are not the user's to mend."""
    from pipeline.errors import EncodeError, EngineError, ExtractError, StoreError

    if not _is_ours(error):
        raise error
    missing = error.filename if isinstance(error, FileNotFoundError) else None
    text = " ".join(str(error).split()) if missing is None else f"{missing}: no such file or folder"
    print(f"vtm: {text or type(error).__name__}", file=sys.stderr)
    is_accident = isinstance(error, EncodeError | EngineError | StoreError)
    usage = isinstance(error, ExtractError | ValueError) and not is_accident
    return FAILED if missing is None and not usage else USAGE


def _is_ours(error: Exception) -> bool:
    """Whether this package raised it on purpose, or the system did; other ValueErrors are bugs and keep their trace."""
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in ("pipeline", "vtm", "jobs")


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of all commands; only the one that is called is imported."""
    parser = argparse.ArgumentParser(
        prog="vtm",
        description="Extract compact token sequences from long videos, once, for training, serving and retrieval.",
        epilog="exit codes: 0 all done, 3 finished with recorded failures, 2 wrong usage or settings, 1 anything else",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    called = next((text for text in arguments if not text.startswith("-")), "")
    for name, purpose in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=purpose)
        if name == called:
            module = importlib.import_module(f"jobs.commands.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
