"""The command `vtm`: imports the sub-command's file, parses, runs, and turns errors into one line and an exit code.

Exit codes: 0 success; 1 failure; 2 wrong usage, settings or input; 3 finished, but some input failed and is recorded;
130 interrupted; 141 standard output was closed, as by `head`.
"""

from __future__ import annotations

import atexit
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from jobs.logs import add_verbosity_options, set_up_logging
from jobs.parser import Parser, UsageError
from pipeline.nearest_name import nearest

COMMANDS = {
    "extract": "extract videos into token shards; the same command resumes a run",
    "plan": "estimate clips, tokens, bytes and GPU hours of a run without decoding",
    "submit": "run a recipe on a Ray cluster, or write it as a KubeRay or Slurm job",
    "verify": "check that a run folder is complete and undamaged",
    "repair": "extract again what verify finds missing or damaged",
    "status": "show the progress of a run from its run folder",
    "inspect": "summarise a run folder",
    "replay": "decode and encode one clip of a run again, to debug a failure",
    "merge": "merge the clips of each video into tokens for the whole video",
    "budget": "measure what token budgets keep and cost, on videos or over the clips of a run",
    "search": "find the clips and moments most similar to a picture, a clip, a time span or a text",
    "export": "write a cache in the layout of another reader",
    "report": "write an HTML page that shows what was merged",
    "train": "train learnable merging on token caches",
    "eval": "evaluate a trained network",
    "predict": "predict a label for every video of a token cache",
    "bench": "run a benchmark, with other software in the same run",
    "assets": "download the film and the weights of the demo",
}
OK, FAILED, USAGE, PARTIAL, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 3, 130, 141
log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    # Decoders share the cores with the encoder's threads, which would otherwise spin while they wait for each other.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = list(sys.argv[1:] if argv is None else argv)
    set_up_logging(verbose=False, quiet=False)
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The interpreter flushes standard output once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (ValueError, OSError, _extract_error()) as error:
        return _report(error)
    except KeyboardInterrupt:
        print("vtm: interrupted; committed shards are kept, run the same command again to resume", file=sys.stderr)
        return INTERRUPTED


def _run(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        return OK if arguments else USAGE
    if arguments[0] == "--version":
        from pipeline.version import __version__

        print(f"vtm {__version__}")
        return OK
    name = arguments[0]
    if name not in COMMANDS:
        kind = "an option of vtm itself" if name.startswith("-") else "a command"
        raise UsageError(f"{name} is not {kind}: {nearest(name, COMMANDS)}`vtm --help` lists the commands")
    parser, module = command_parser(name)
    options = parser.parse(arguments[1:])
    set_up_logging(verbose=options.verbose, quiet=options.quiet)
    return int(module.run(options))


def command_parser(name: str) -> tuple[Parser, ModuleType]:
    """The parser of one command, and its module: the others are not imported."""
    module = importlib.import_module(f"jobs.commands.{name}")
    parser = Parser(f"vtm {name}", COMMANDS[name][0].upper() + COMMANDS[name][1:] + ".")
    module.add_arguments(parser)
    add_verbosity_options(parser)
    return parser, module


def overview() -> str:
    """The help of `vtm` itself."""
    width = max(map(len, COMMANDS))
    return "\n".join(
        [
            "usage: vtm COMMAND ...",
            "",
            "Extract compact token sequences from long videos, once, for training, serving and retrieval.",
            "",
            "commands (`vtm COMMAND --help` shows the options):",
            *(f"  {name:<{width}}  {purpose}" for name, purpose in COMMANDS.items()),
            "",
            "options: -h, --help; --version",
            "exit codes: 0 success, 1 failure, 2 wrong usage or settings, 3 finished with recorded failures",
        ]
    )


def _extract_error() -> type[Exception]:
    from pipeline.errors import ExtractError

    return ExtractError


def _report(error: Exception) -> int:
    """One line on stderr. What the user can correct is a usage error; everything else is a failure."""
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
    """Whether this package or the system raised it on purpose; other ValueErrors are bugs and keep their traceback."""
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in ("pipeline", "vtm", "jobs")


def run_and_exit() -> NoReturn:
    """The console script."""
    code = main()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    # Native threads, of a run that stopped early or of a library's pool, abort the process (exit code 134) when the
    # interpreter is torn down under them. All files are closed by now.
    os._exit(code)


if __name__ == "__main__":
    run_and_exit()
