"""The report of a real small run, opened and clicked in Chromium; and its parts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jobs.cli import main
from jobs.commands.report import chosen_clips
from jobs.report import overview
from jobs.report.page import render
from jobs.report.pictures import component_colours, principal_axes
from pipeline import TokenCache
from pipeline.cache.preview import clip_facts
from tests.jobs.report.browser import Page, opened
from tests.synthetic import make_video

RECIPE = ["--fps", "2", "--clip-frames", "7", "--batch-frames", "2", "--engine", "inline", "--gpus", "0"]


@pytest.fixture(scope="module")
def runs(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run whose second video cannot be read, and another of the same videos by another strategy."""
    folder = tmp_path_factory.mktemp("report")
    video = make_video(folder / "<b>film & co.mp4", frames=170, fps=20)
    (folder / "text.mp4").write_text("no video")
    made = []
    for name, more in (("tree", ["--keep", "0.2"]), ("naive", ["--keep", "0.2"])):
        arguments = ["extract", str(video), str(folder / "text.mp4"), "--encoder", str(tiny_encoder), *RECIPE, *more]
        assert main([*arguments, "--strategy", name, "--out", str(folder / name)]) == 3
        made.append(folder / name)
    return made[0], made[1]


@pytest.fixture(scope="module")
def page(runs: tuple[Path, Path]) -> Path:
    target = runs[0].parent / "page.html"
    command = ["report", str(runs[0]), "--beside", str(runs[1]), "--clips", "2", "--frames", "3"]
    assert main([*command, "--out", str(target)]) == 0
    return target


@pytest.fixture(scope="module")
def view(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    pytest.importorskip("aiohttp")
    with opened(page, tmp_path_factory.mktemp("chromium")) as opened_page:
        yield opened_page


def test_it_needs_nothing_from_elsewhere(page: Path) -> None:
    text = page.read_text()
    assert text.count("data:image/webp;base64,") == 6
    for word in ("http://", "https://", "<b>film", " src=", "@import"):
        assert word not in text


def test_a_click_follows_a_token_through_the_frames(view: Page, runs: tuple[Path, Path]) -> None:
    assert view.evaluate("document.querySelectorAll('.frames canvas').length") == 12
    view.click(".frames canvas", 0.01, 0.01)
    said = view.evaluate("document.querySelector('.says').textContent")
    facts = clip_facts(str(runs[0]))
    position = chosen_clips([clip.fidelity for clip in facts], 2)[0]
    clip = TokenCache(runs[0], arrays="numpy")[position]
    token = int(clip.group[0])
    frames = np.unique(np.nonzero(clip.group == token)[0] // (clip.grid_thw[1] * clip.grid_thw[2]))
    assert said.startswith(f"Token {token} represents {clip.sizes[token]} ")
    assert f" in {len(frames)} of {clip.grid_thw[0]} frames" in said
    view.click(".frames canvas", 0.01, 0.01)
    assert view.evaluate("document.querySelector('.says').textContent").startswith("The chart shows")
    assert not view.errors


def test_modes_change_the_picture_and_keys_move_over_patches(view: Page) -> None:
    pixels = "document.querySelector('.frames canvas').toDataURL()"
    seen = set()
    for mode in ("tokens", "mass", "after", "before", "frame"):
        view.click(f"label:has([value={mode}])")
        assert view.evaluate("document.querySelector('#modes :checked').value") == mode
        seen.add(view.evaluate(pixels))
    assert len(seen) == 5
    view.evaluate("document.querySelector('.frames canvas').focus()")
    view.press("ArrowRight")
    assert view.evaluate("document.querySelector('.says').textContent").startswith("Token ")
    view.press("Escape")
    assert view.evaluate("document.querySelector('.says').textContent").startswith("The chart shows")
    assert not view.errors


def test_it_names_failures_and_both_runs(view: Page) -> None:
    text = view.evaluate("document.body.innerText")
    assert "1 corrupt" in text
    assert "text.mp4" in text
    assert "<b>film & co.mp4" in text
    assert "naive: " in text
    assert "complete and undamaged" in text
    assert "times real time" in text


def test_it_fits_a_phone(page: Path, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    with opened(page, tmp_path / "profile") as view:
        view.call("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=2, mobile=True)
        assert view.evaluate("document.documentElement.scrollWidth") <= 390
        dark = [{"name": "prefers-color-scheme", "value": "dark"}]
        light = view.evaluate("getComputedStyle(document.body).backgroundColor")
        view.call("Emulation.setEmulatedMedia", features=dark)
        assert view.evaluate("getComputedStyle(document.body).backgroundColor") != light


def test_ten_thousand_clips_make_a_small_page(runs: tuple[Path, Path]) -> None:
    from jobs.commands.inspect import inspect

    facts = inspect(str(runs[0]))
    (clip, *_) = clip_facts(str(runs[0]))
    video = facts["videos"][0] | {"warnings": []}
    many = [replace(clip, video_id=f"v{i // 5}", clip_index=i % 5, fidelity=0.5 + i / 20_001) for i in range(10_000)]
    facts["videos"] = [video | {"video_id": f"v{i}", "uri": f"s3://films/{i}.mp4"} for i in range(2_000)]
    page = render(facts, many, [])
    assert len(page) < 300_000
    assert "and 1800 more in videos.parquet" in page
    assert page.index("s3://films/0.mp4") < page.index("s3://films/1.mp4")


def test_damage_and_failures_lie_where_they_are() -> None:
    video = {
        "video_id": "v",
        "uri": "a/film.mp4",
        "width_px": 0,
        "height_px": 0,
        "codec": "",
        "duration_found_s": 100.0,
        "clips": 1,
        "clips_done": 0,
        "status": "partial",
        "picture_policy": "",
        "warnings": [],
    }
    failed = {"video_id": "v", "start_ns": 25e9, "end_ns": 75e9, "failure": "decode", "message": "bad"}
    (line,) = overview.video_lines([video], [], [failed])
    (span,) = line.spans
    assert (span.start, span.width, span.kind) == (0.25, 0.5, "failed")
    assert span.text == "0:25 to 1:15: decode: bad"
    assert line.worst is None


def test_the_worst_clips_come_first_and_others_from_all_over() -> None:
    fidelities = [0.9, 0.2, 0.8, 0.1, 0.7, 0.6, 0.95]
    assert chosen_clips(fidelities, 4) == [3, 1, 5, 6]
    assert chosen_clips(fidelities, 99)[:2] == [3, 1]
    assert sorted(chosen_clips(fidelities, 99)) == list(range(7))
    assert chosen_clips([], 4) == []


def test_principal_components_tell_two_groups_apart() -> None:
    tokens = np.zeros((11, 5), np.float32)
    tokens[:6, 2] = 1
    weights = np.ones(11, np.float32)
    axes = principal_axes(tokens, weights)
    assert abs(axes[1]).argmax() == 2
    colours, limits = component_colours(tokens, axes)
    assert {tuple(colour) for colour in colours[:6]} != {tuple(colour) for colour in colours[6:]}
    again, _ = component_colours(tokens, axes, limits)
    assert (again == colours).all()


def test_one_token_of_one_channel_has_a_colour() -> None:
    tokens = np.ones((1, 1), np.float32)
    colours, _ = component_colours(tokens, principal_axes(tokens, np.ones(1, np.float32)))
    assert colours.shape == (1, 3)


def test_the_page_holds_valid_data(page: Path) -> None:
    text = page.read_text()
    start = text.index('type="application/json">') + len('type="application/json">')
    views = json.loads(text[start : text.index("</script>", start)])
    assert len(views) == 2
    assert [run["sources"] for run in views[0]["runs"]] == [3 * 15, 3 * 15]
