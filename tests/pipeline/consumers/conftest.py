"""Small video-LLMs, and caches that `vtm extract` makes of one video with their vision parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from pipeline import CachedClip, TokenCache
from tests.pipeline.consumers.tiny_tokenizer import tiny_tokenizer
from tests.pipeline.encode.video_llm_checkpoints import make_video_llm
from tests.pipeline.runs import run, tiny_recipe
from tests.synthetic import make_video
from vtm.encoders.threads import computing_alone


@dataclass(frozen=True)
class Made:
    """A model and a cache of it."""

    family: str
    folder: Path
    out: Path
    cache: TokenCache
    model: Any

    @property
    def clips(self) -> list[CachedClip]:
        return list(self.cache)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def one_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4.28 s: nine instants at 2 a second, so clips of four, four and one."""
    return make_video(tmp_path_factory.mktemp("video") / "one.mp4", frames=107, fps=25)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other make small models slow."""
    with computing_alone():
        yield


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, one_video: Path) -> Callable[..., Made]:
    """Makes a model and a cache of it, each once."""
    folders: dict[str, tuple[Path, Any]] = {}
    known: dict[tuple[str, str], Made] = {}

    def make(family: str, **settings: Any) -> Made:
        if family not in folders:
            folder = make_video_llm(family, tmp_path_factory.mktemp(family))
            folders[family] = folder, transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
        folder, model = folders[family]
        key = family, repr(sorted(settings.items()))
        if key not in known:
            square = {} if folder_takes_no_size(family) else {"size_px": "16x24"}
            chosen = {"strategy": "none", "keep": None, "dtype": "float32", "clip_frames": 4} | square | settings
            out = tmp_path_factory.mktemp("out")
            run([one_video], out, tiny_recipe(folder, **chosen))
            known[key] = Made(family, folder, out, TokenCache(out), model)
        return known[key]

    with torch.random.fork_rng():
        yield make


def folder_takes_no_size(family: str) -> bool:
    return family.startswith("llava") or family in ("internvl", "smolvlm")
