"""The command as users meet it: one line and a documented exit code for everything that is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.cli import main
from jobs.commands.bench import BENCHES
from tests.pipeline.runs import some_videos
from tests.synthetic import make_video

RECIPE = ["--strategy", "naive", "--fps", "2", "--clip-frames", "3", "--batch-frames", "2", "--engine", "inline"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return some_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="module")
def done(videos: list[Path], tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "out"
    arguments = ["extract", *map(str, videos), "--encoder", str(tiny_encoder), "--out", str(out), *RECIPE]
    assert main([*arguments, "--gpus", "0"]) == 0
    return out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["gone.mp4"], "gone.mp4: no such file or folder"),
        (["*.mp4"], "no file matches this glob"),
        (["folder"], "the folder holds no video"),
        (["good.mp4", "--strategy", "magic"], "--strategy magic is unknown"),
        (["good.mp4", "--keep", "0"], "--keep 0.0 must be above 0"),
        (["good.mp4", "--keep", "1.5"], "--keep 1.5 must be above 0"),
        (["good.mp4", "--encoder", "nowhere"], "nowhere: no such folder"),
        (["good.mp4", "--encoder", "folder"], "lacks config.json"),
        (["good.mp4", "--out", "nowhere://bucket/out"], "no file system for such an address"),
        (["good.mp4", "--fps", "fast"], "--fps fast is no rate"),
        (["good.mp4", "--config", "gone.toml"], "--config gone.toml cannot be read"),
        ([], "no input was given"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    arguments: list[str],
    expected: str,
    tiny_encoder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    if "*.mp4" not in arguments:
        make_video(tmp_path / "good.mp4", frames=7)
    if "--encoder" not in arguments:
        arguments = [*arguments, "--encoder", str(tiny_encoder)]
    assert main(["extract", "--out", "out", *arguments, "--engine", "inline"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("vtm: ")
    assert expected in lines[0]
    assert not (tmp_path / "out").exists()


def test_another_fingerprint_is_exit_code_2(
    done: Path, videos: list[Path], tiny_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["extract", str(videos[0]), "--encoder", str(tiny_encoder), "--out", str(done), *RECIPE]
    assert main([*arguments, "--keep", "0.5"]) == 2
    assert "keep 0.1 there, 0.5 now" in capsys.readouterr().err


def test_a_text_file_named_mp4_is_recorded_and_exit_code_3(
    videos: list[Path], tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    out = tmp_path / "out"
    arguments = ["extract", str(tmp_path / "text.mp4"), str(videos[2]), "--encoder", str(tiny_encoder)]
    assert main([*arguments, "--out", str(out), *RECIPE, "--json"]) == 3
    summary = json.loads(capsys.readouterr().out)
    assert summary["clips"] == 1
    assert [failed["failure"] for failed in summary["failures"]] == ["corrupt"]
    assert main(["verify", str(out)]) == 0


def test_verify(done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(done)]) == 0
    assert "sound and complete (3 videos, 11 clips, 0 recorded failures)" in capsys.readouterr().out
    assert main(["verify", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_verify_says_what_is_wrong(done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    out = shutil.copytree(done, tmp_path / "out")
    next((out / "shards").iterdir()).unlink()
    assert main(["verify", str(out)]) == 1
    assert "is missing" in capsys.readouterr().err


def test_inspect(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(done)]) == 0
    text = capsys.readouterr().out
    assert "11 of 11 clips" in text
    assert "long.mp4" in text
    assert main(["inspect", str(done), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert {video["status"] for video in facts["videos"]} == {"done"}


def test_plan_agrees_with_what_was_made(
    done: Path, videos: list[Path], tiny_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *map(str, videos), "--encoder", str(tiny_encoder), *RECIPE, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["clips"] for row in rows] == [7, 3, 1]
    assert sum(row["frames"] for row in rows) == 32
    from pipeline import TokenCache

    assert sum(row["tokens"] for row in rows) == sum(len(clip.tokens) for clip in TokenCache(done))


def test_report(done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert main(["report", str(done), "--clips", "2", "--page", str(page)]) == 0
    text = page.read_text()
    assert text.count("data:image/png;base64,") >= 2
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text
    start = text.index('type="application/json">') + len('type="application/json">')
    previews = json.loads(text[start : text.index("</script>", start)])
    assert len(previews) == 2
    assert [sum(clip["sizes"]) for clip in previews] == [clip["sources"] for clip in previews]


def test_a_recipe_file_and_options_over_it(
    videos: list[Path], tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.toml"
    lines = [f'encoder = "{tiny_encoder}"', 'strategy = "naive"', "keep = 0.5", "fps = 2", "clip_frames = 3"]
    lines += ['engine = "inline"', f'inputs = ["{videos[2]}"]', f'out = "{tmp_path / "out"}"']
    recipe.write_text("\n".join(lines))
    assert main(["extract", "--config", str(recipe), "--tokens-per-clip", "4"]) == 0
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "out")]) == 0
    assert "4 tokens a clip" in capsys.readouterr().out


@pytest.mark.parametrize("line", ["inputs = 5", 'workers = "two"', "out = 3"])
def test_a_recipe_with_values_of_the_wrong_kind_is_one_line(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.toml").write_text(f"{line}\n")
    assert main(["extract", "--config", str(tmp_path / "recipe.toml")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("extract", "plan", "verify", "inspect", "report", "train", "eval", "bench"))


@pytest.mark.parametrize("name", sorted(BENCHES))
def test_every_benchmark_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["bench", name, "--help"])
    assert stop.value.code == 0
    assert f"vtm bench {name}" in capsys.readouterr().out


def test_a_benchmark_of_a_missing_video_is_one_line(tiny_encoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "reuse", "gone.mp4", "--encoder", str(tiny_encoder), "--layer", "-1"]) == 2
    assert capsys.readouterr().err.strip() == "vtm: gone.mp4: no such file or folder"
