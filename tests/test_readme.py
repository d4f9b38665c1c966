"""What the README and the pages show is run as it stands there, or says why it is not."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.cli import COMMANDS, main
from jobs.reference import api_reference, cli_reference
from pipeline import TokenCache
from pipeline.errors import FAILURE_CLASSES
from pipeline.settings import STRATEGIES
from pipeline.shards.columns import schema
from tests.pipeline.runs import run, some_videos, tiny_recipe
from tests.synthetic import make_video

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "docs/extract.md", "docs/cluster.md", "docs/reading.md", "docs/format.md")
PAGES += ("docs/how-it-works.md", "docs/troubleshooting.md")
BLOCK = re.compile(r"(<!-- not run[^>]*: [^>]+-->\n)?```(\w*)\n(.*?)```", re.S)
SMALL = ["--batch-frames", "2", "--fps", "2", "--clip-frames", "3", "--gpus", "0"]
"""What makes the commands of the pages quick; none of them is named there."""


@dataclass(frozen=True)
class Block:
    page: str
    number: int
    language: str
    code: str
    is_run: bool

    def __str__(self) -> str:
        return f"{self.page}-{self.number}"


def blocks() -> Iterator[Block]:
    for page in PAGES:
        for number, (marker, language, code) in enumerate(BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))):
            yield Block(page, number, language, code, not marker)


BLOCKS = list(blocks())


@pytest.fixture(scope="module")
def place(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the pages assume it: videos, an encoder, a recipe, and a run in both formats."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "videos").mkdir()
    make_video(folder / "videos" / "film.mp4", frames=75)
    (folder / "vit-s14").symlink_to(tiny_encoder)
    (folder / "recipe.toml").write_text((ROOT / "jobs" / "recipes" / "cluster.toml").read_text())
    recipe = tiny_recipe(tiny_encoder, strategy="tree", keep=0.5)
    run(some_videos(folder), folder / "out", recipe, format=("parquet", "webdataset"))
    return folder


@pytest.fixture
def there(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return place


def named(language: str, *, pages: tuple[str, ...] = PAGES) -> list[Block]:
    return [block for block in BLOCKS if block.language == language and block.is_run and block.page in pages]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("block", named("python"), ids=str)
def test_python_blocks_run(block: Block, there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (5, 40, 60, 3), dtype=np.uint8)
    names: dict[str, Any] = {"frames": frames}
    exec(compile(block.code.replace("layer=9", "layer=1"), str(block), "exec"), names)
    if "print(" in block.code:
        assert capsys.readouterr().out.strip()
    else:
        assert names["tokens"].shape[1] == 8


def commands(block: Block) -> list[list[str]]:
    """Arguments of the commands of a block; all of them are `vtm`."""
    lines = [shlex.split(line, comments=True) for line in block.code.splitlines()]
    found = [words for words in lines if words]
    assert all(words[0] == "vtm" for words in found), f"{block} holds a command that cannot be run here: mark it"
    return [words[1:] for words in found]


@pytest.mark.parametrize("page", sorted({block.page for block in named("bash")}))
def test_shell_blocks_run(page: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the page, in a folder of their own: what one command writes the next one reads."""
    todo = [words for block in named("bash", pages=(page,)) for words in commands(block)]
    monkeypatch.chdir(tmp_path)
    for name in ("videos", "vit-s14", "recipe.toml"):
        (tmp_path / name).symlink_to((place / name).resolve())
    for block in named("toml", pages=(page,)):
        (tmp_path / "recipe.toml").unlink()
        (tmp_path / "recipe.toml").write_text(block.code.replace("layer = 9", "layer = 1"))
    for words in todo:
        small = SMALL if words[0] == "extract" else SMALL[:-2] if words[0] == "plan" else []
        arguments = [*["1" if word == "9" else word for word in words], *small]
        assert main(arguments) == 0, f"vtm {shlex.join(words)}"


def test_every_block_is_run_or_says_why_not() -> None:
    for block in BLOCKS:
        assert not block.is_run or block.language in ("python", "bash", "toml"), f"{block}: {block.language or 'plain'}"
    assert len(named("python")) >= 12
    assert len(named("bash")) >= 6


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", text):
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"


@pytest.mark.filterwarnings("ignore")
def test_the_cut_in_numpy_is_that_of_the_cache(there: Path) -> None:
    (block,) = [block for block in BLOCKS if "parent.npy" in block.code and block.language == "python"]
    names: dict[str, Any] = {}
    exec(compile(block.code, str(block), "exec"), names)
    clip = TokenCache(there / "out", tokens=5, arrays="numpy")[names["sample"]["__key__"]]
    order = [int(names["new_group"][clip.group == m][0]) for m in range(5)]
    np.testing.assert_array_equal(names["new_sizes"][order], clip.sizes)
    np.testing.assert_allclose(names["new_tokens"][order], clip.tokens, rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("docs/format.md", schema(3).names),
        ("docs/how-it-works.md", STRATEGIES),
        ("docs/extract.md", FAILURE_CLASSES),
        ("docs/cli.md", [f"## vtm {name}\n" for name in COMMANDS]),
    ],
)
def test_pages_name_everything(page: str, names: list[str]) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert not [name for name in names if name not in text]


@pytest.mark.parametrize(("page", "made"), [("docs/cli.md", cli_reference), ("docs/api.md", api_reference)])
def test_the_reference_is_that_of_the_code(page: str, made: Any) -> None:
    assert (ROOT / page).read_text(encoding="utf-8") == made(), "run `python -m jobs.reference`"
