"""Every page is followed as a reader would: its blocks are run in order, as they stand there, on small data."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.cli import main
from pipeline import TokenCache
from tests.page_folder import make_page_folder
from tests.pages import PAGES, Block, blocks_of
from tests.pipeline.consumers.tiny_tokenizer import tiny_tokenizer
from tests.pipeline.encode.video_llm_checkpoints import make_video_llm
from tests.pipeline.runs import run, tiny_recipe
from tests.synthetic import make_video
from vtm.encoders.threads import computing_alone

SMALLER = {
    "layer=9": "layer=1",
    "layer = 9": "layer = 1",
    '"facebook/dinov2-small"': '"vit-s14"',
    '"Qwen/Qwen2.5-VL-3B-Instruct"': '"qwen"',
    "(60, 360, 640, 3)": "(5, 40, 60, 3)",
    "(16, 360, 640, 3)": "(5, 40, 60, 3)",
    "(60, 16, 16)": "(6, 8, 8)",
    "torch.randn(1, 60, 256, 384)": "torch.randn(1, 6, 64, 24)",
    "torch.randn(60, 256, 384)": "torch.randn(6, 64, 24)",
    "(1, 16, 16)": "(1, 8, 8)",
    "60 * 256": "6 * 64",
    "tile(60)": "tile(6)",
    "fidelity_at(256)": "fidelity_at(16)",
    "coarsen(num_tokens=512)": "coarsen(num_tokens=32)",
    "][10:20]": "][:2]",
}
"""What makes the Python of the pages quick: another encoder and smaller clips, nothing else."""
SMALL_CLIPS = ["--fps", "2", "--clip-frames", "3"]
SMALL: dict[str, list[str]] = {
    "extract": [*SMALL_CLIPS, "--batch-frames", "2", "--gpus", "0"],
    "plan": [*SMALL_CLIPS, "--batch-frames", "2"],
    "budget": [*SMALL_CLIPS, "--clips", "1"],
    "train": shlex.split("--epochs 2 --warmup-epochs 1 --widths 6 5 --windows 1 3 --heads 1 --head-width 5"),
}
"""What makes the commands quick, in place of the same options of the page."""
CONTINUED = {f"docs/{name}.md" for name in ("encoders", "loaders", "merging", "reading", "video-llm")}
"""Pages whose Python is one session; on the others each block stands alone."""


@pytest.fixture(scope="module")
def place(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_page_folder(tmp_path_factory.mktemp("pages"), tiny_encoder)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random video-LLM with its tokenizer, and a run of its vision part."""
    folder = tmp_path_factory.mktemp("qwen")
    tiny_tokenizer().save_pretrained(make_video_llm("qwen2_5_vl", folder / "qwen"))
    video = make_video(folder / "one.mp4", frames=107)
    recipe = tiny_recipe(folder / "qwen", strategy="tree", keep=0.5, size_px="16x24", clip_frames=4)
    run([video], folder / "out", recipe)
    return folder


def runnable(page: str) -> list[Block]:
    return [block for block in blocks_of(page) if block.reason is None and block.language != "text"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)])
def test_a_page_can_be_followed(
    page: str,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    lay_out(page, place, tmp_path)
    if page == "docs/video-llm.md":
        for name in ("qwen", "out"):
            (tmp_path / name).unlink(missing_ok=True)
            (tmp_path / name).symlink_to(request.getfixturevalue("qwen") / name)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    printed = ""
    with computing_alone():  # threads that wait for each other make small models slow
        for block in runnable(page):
            RUN[block.language](block, names)
            shown = capsys.readouterr().out
            assert shown.strip() or "print(" not in block.code, f"{block} prints nothing"
            printed += shown
            if page not in CONTINUED:
                names = {}
    CHECKS.get(page, lambda _: None)(printed)


def lay_out(page: str, place: Path, folder: Path) -> None:
    """Links to what the page assumes; the runs that it makes itself are left to it."""
    makes_run = any("--out out" in block.code for block in runnable(page) if block.language == "bash")
    for path in place.iterdir():
        if not (path.name == "out" and makes_run):
            (folder / path.name).symlink_to(path.resolve())


def run_python(block: Block, names: dict[str, Any]) -> None:
    code = block.code
    for shown, smaller in SMALLER.items():
        code = code.replace(shown, smaller)
    if "<video id>" in code:
        code = code.replace("<video id>", next(iter(TokenCache("out").videos)))
    exec(compile(code, str(block), "exec"), names)


def run_commands(block: Block, _: dict[str, Any]) -> None:
    """All of them are `vtm`: what one writes the next one reads."""
    for line in block.code.splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        assert words[0] == "vtm", f"{block}: `{line}` cannot be run here: mark the block"
        words = ["1" if word == "9" else word for word in words[1:]]
        if "CLIP_ID" in words:
            words[words.index("CLIP_ID")] = TokenCache("out").clip_ids[0]
        assert main([*words, *SMALL.get(words[0], [])]) == 0, f"{block}: {line}"


def write_recipe(block: Block, _: dict[str, Any]) -> None:
    Path("recipe.toml").write_text(block.code.replace("layer = 9", "layer = 1"))


def compare_header(block: Block, _: dict[str, Any]) -> None:
    assert Path("scenes.csv").read_text().splitlines()[0] == block.code.splitlines()[0]


RUN: dict[str, Callable[[Block, dict[str, Any]], None]] = {
    "python": run_python,
    "bash": run_commands,
    "toml": write_recipe,
    "csv": compare_header,
}


def two_models_have_learnt(printed: str) -> None:
    scenes = next(line for line in printed.splitlines() if line.startswith("scenes:"))
    shots = next(line for line in printed.splitlines() if line.startswith("shots:"))
    accuracy, num_pictures = re.findall(r"[\d.]+", scenes)[:2]
    assert int(num_pictures) == 6
    assert float(accuracy) > 0.8, scenes
    found, _, chance = map(float, re.findall(r"\d\.\d+", shots))
    assert found > chance + 0.2, shots


def three_are_found(printed: str) -> None:
    assert len(re.findall(r"^[-\d.]+ \S+ [\d.]+$", printed, re.M)) == 3


CHECKS: dict[str, Callable[[str], None]] = {
    "docs/train-on-a-cache.md": two_models_have_learnt,
    "docs/search.md": three_are_found,
}


@pytest.mark.filterwarnings("ignore")
def test_the_cut_in_numpy_is_that_of_the_cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    (block,) = [block for block in blocks_of("docs/reading.md") if "parent.npy" in block.code]
    names: dict[str, Any] = {}
    exec(compile(block.code, str(block), "exec"), names)
    clip = TokenCache(place / "out", tokens=5, arrays="numpy")[names["sample"]["__key__"]]
    order = [int(names["new_group"][clip.group == m][0]) for m in range(5)]
    np.testing.assert_array_equal(names["new_sizes"][order], clip.sizes)
    np.testing.assert_allclose(names["new_tokens"][order], clip.tokens, rtol=0, atol=2e-3)
