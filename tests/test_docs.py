"""What the pages say agrees with the code: commands and their options, links, names, the generated reference."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Callable

import pytest

from jobs.cli import COMMANDS, command_parser
from jobs.commands.bench import bench_parser
from jobs.parser import Parser
from jobs.reference import api_reference, cli_reference
from pipeline.errors import FAILURE_CLASSES
from pipeline.settings import STRATEGIES
from pipeline.shards.columns import schema
from tests.pages import CODE, PAGES, ROOT, blocks_of, indented_blocks, shown_commands, text_of

OTHER_PROGRAMS = ("pip", "source")
"""Shown in blocks that are not run, and not ours to check."""


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_says_why_not(page: str) -> None:
    """`test_readme.py` runs all blocks but those with a reason and plain text."""
    assert text_of(page).count("```") == 2 * len(blocks_of(page)), "a fence that is no block"
    assert not indented_blocks(page), "use fences, which are run or marked"
    for block in blocks_of(page):
        assert block.language in (*CODE, "text"), f"{block}: {block.language or 'no language'}"
        commands = re.findall(r"^(?:\$ ?)?(?:vtm [a-z]+ |python -|pip |make |import |from )", block.code, re.M)
        assert block.language != "text" or not commands, f"{block} is code: say which language"


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_are_not_run_fit_the_code(page: str) -> None:
    marked = [block for block in blocks_of(page) if block.reason is not None and block.language == "bash"]
    lines = [line for block in marked for line in block.code.replace("\\\n", " ").splitlines()]
    for line in [*lines, *(() if page == "CHANGELOG.md" else shown_commands(page))]:  # which names what is gone
        words = shlex.split(line.replace("…", "..."), comments=True)
        while words and (words[0] == "time" or re.match(r"[A-Z]+=", words[0])):
            del words[0]
        if words:
            name = words[0].removeprefix(".venv/bin/")
            assert name in PROGRAMS or name in OTHER_PROGRAMS, line
            PROGRAMS.get(name, lambda _: None)(words[1:])


def fits_vtm(words: list[str]) -> None:
    """Options are those of the command; arguments may be left out, or stand for something."""
    if words[0] in ("COMMAND", "--help", "--help-all"):
        return
    assert words[0] in COMMANDS, f"vtm {words[0]}"
    parser, rest = command_parser(words[0])[0], words[1:]
    if words[0] == "bench" and rest[0] != "NAME":
        parser, rest = bench_parser(rest[0])[0], rest[1:]
    known = _options(parser)
    unknown = [word for word in rest if re.match(r"--?[a-z]", word) and word.split("=")[0] not in known]
    assert not unknown, f"vtm {' '.join(words)}: {unknown}"


def _options(parser: Parser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings}


def fits_python(words: list[str]) -> None:
    assert words[0] == "-m"
    assert importlib.util.find_spec(words[1]) is not None, words[1]


def fits_pytest(words: list[str]) -> None:
    paths = [word.partition("::")[0] for word in words if not word.startswith("-") and "/" in word]
    assert all((ROOT / path).exists() for path in paths), words


def fits_make(words: list[str]) -> None:
    assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.M), words


def fits_torchrun(words: list[str]) -> None:
    assert "--no-python" in words, "vtm is no file of Python"
    assert words[words.index("vtm") - 1] == "--no-python"
    fits_vtm(words[words.index("vtm") + 1 :])


PROGRAMS: dict[str, Callable[[list[str]], None]] = {
    "vtm": fits_vtm,
    "python": fits_python,
    "pytest": fits_pytest,
    "make": fits_make,
    "torchrun": fits_torchrun,
}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target, _, anchor in re.findall(r"\]\((?!https?://)([^)#]*)(#([^)]+))?\)", text_of(page)):
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), f"{page} links to {target}"
        assert not anchor or anchor in _anchors(path.read_text(encoding="utf-8")), f"{page}: {target}#{anchor}"


def _anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_tests_that_pages_name_are_there() -> None:
    """`tests/a/test_b.py`, `a/test_b.py::test_c` and `test_c` alone."""
    files = {str(path.relative_to(ROOT / "tests")): path.read_text() for path in (ROOT / "tests").rglob("*.py")}
    functions = {name for text in files.values() for name in re.findall(r"def (test_\w+)", text)}
    for page in PAGES:
        for span in re.findall(r"`([\w/.:]*\btest_\w+(?:\.py)?(?:::\w+)?)`", text_of(page)):
            file, _, function = span.removeprefix("tests/").partition("::")
            if file.endswith(".py"):
                assert any(name == file or name.endswith(f"/{file}") for name in files), f"{page}: {span}"
            elif file:
                function = file
            assert not function or function in functions or function == "test_video_30s", f"{page}: {span}"


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("docs/format.md", schema(3).names),
        ("docs/how-it-works.md", STRATEGIES),
        ("docs/extract.md", FAILURE_CLASSES),
        ("docs/cli.md", [f"## vtm {name}\n" for name in COMMANDS]),
        ("README.md", [str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")]),
    ],
)
def test_pages_name_everything(page: str, names: list[str]) -> None:
    assert not [name for name in names if name not in text_of(page)]


@pytest.mark.parametrize(("page", "made"), [("docs/cli.md", cli_reference), ("docs/api.md", api_reference)])
def test_the_reference_is_that_of_the_code(page: str, made: Callable[[], str]) -> None:
    assert text_of(page) == made(), "run `python -m jobs.reference`"
