"""The command as users meet it: one line and a documented exit code for everything that is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from jobs import commands
from jobs.cli import COMMANDS, command_parser, main
from jobs.commands.bench import BENCHES, bench_parser
from jobs.options import settings_in
from pipeline.settings import Execution, Recipe
from tests.pipeline.runs import some_videos
from tests.synthetic import make_video

ROOT = Path(__file__).resolve().parents[2]
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
        (["good.mp4", "--fps", "fast"], "--fps fast is not a frame rate"),
        (["good.mp4", "--config", "gone.toml"], "--config gone.toml cannot be read"),
        ([], "no input was given"),
        pytest.param(
            ["good.mp4", "--decoder", "nvdec"],
            "--decoder nvdec needs an NVIDIA GPU, and there is none that torch can use: leave out --decoder nvdec",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
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
    assert "complete and undamaged (3 videos, 11 clips, 0 recorded failures)" in capsys.readouterr().out
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
    assert main(["plan", *map(str, videos), "--encoder", str(tiny_encoder), *RECIPE[:-2], "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    rows, totals = plan["videos"], plan["totals"]
    assert [row["clips"] for row in rows] == [7, 3, 1]
    assert totals["frames"] == sum(row["frames"] for row in rows) == 32
    assert totals["encoder_h"] == pytest.approx(32 / plan["rates"]["encode_frames_per_s"] / 3600)
    from pipeline import TokenCache

    assert sum(row["tokens"] for row in rows) == sum(len(clip.tokens) for clip in TokenCache(done))


def test_plan_takes_hours_from_rates_and_scans_many_in_processes(
    videos: list[Path], tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = {"device": "cuda", "encode_frames_per_s": 16.0, "decode_core_s_per_video_s": 0.5, "cores": 2, "source": ""}
    (tmp_path / "rates.json").write_text(json.dumps({"rates": rates}))
    (tmp_path / "text.mp4").write_text("no video")
    more = [make_video(tmp_path / f"{i}.mkv", frames=7 + i) for i in range(2)]
    command = ["plan", *map(str, [*videos, *more, tmp_path / "text.mp4"]), "--encoder", str(tiny_encoder)]
    assert main([*command, *RECIPE[:-2], "--rates", str(tmp_path / "rates.json"), "--workers", "2"]) == 3
    text = capsys.readouterr().out
    assert "GPU hours at 16 frames/s" in text
    assert "cores decode as fast as one GPU encodes" in text
    assert "1 unreadable" in text
    assert "5 videos" in text
    (tmp_path / "rates.json").write_text(json.dumps({"rates": rates | {"encode_frames_per_s": 0}}))
    assert main([*command, "--rates", str(tmp_path / "rates.json")]) == 2
    assert "encode_frames_per_s = 0 must be above 0" in capsys.readouterr().err
    (tmp_path / "rates.json").write_text("{}")
    assert main([*command, "--rates", str(tmp_path / "rates.json")]) == 2
    assert "holds no rates" in capsys.readouterr().err


def test_plan_reads_little_of_an_mp4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs.estimate import _by_ranges
    from pipeline.inputs.sources import identify
    from pipeline.video import scan_video
    from pipeline.video.tracks import Track

    video = make_video(tmp_path / "film.mp4", frames=700, fps=25, gop=50)
    whole = scan_video(identify(str(video)))
    read = []
    monkeypatch.setattr(Track, "add", lambda *_: read.append(1))
    by_table = scan_video(identify(_by_ranges(str(video))))
    assert not read
    assert by_table.frame_pts.tolist() == whole.frame_pts.tolist()


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


def test_help_names_every_command_and_each_is_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    files = {path.stem for path in Path(commands.__path__[0]).glob("*.py")} - {"__init__"}
    assert set(COMMANDS) == files
    assert all(f"  {name} " in text for name in files)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_shows_common_options_first_and_all_on_request(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    short = capsys.readouterr().out
    parser, _ = command_parser(name)
    assert f"usage: vtm {name}" in short
    assert all(action.help for action in parser._actions), "an option without a description"
    full = parser.format_full_help()
    assert len(full.splitlines()) >= len(short.splitlines())
    if name == "extract":
        assert "--unit-clips" not in short
        assert "--unit-clips" in full
        assert "{float16,bfloat16,float32,int8,int4}" in full
        assert short.count("\n  --") <= 14


def test_every_setting_is_an_option_described_once() -> None:
    for cls in (Recipe, Execution):
        for setting, field in zip(settings_in(cls), fields(cls), strict=True):
            assert setting.name == field.name
            assert 10 < len(setting.text.split(". ")[0]) < 200, setting.name
    full = command_parser("extract")[0].format_full_help()
    for setting in (*settings_in(Recipe), *settings_in(Execution)):
        assert f"  {setting.option}" in full
    kinds = {setting.name: setting.kind for setting in (*settings_in(Recipe), *settings_in(Execution))}
    assert (kinds["layer"], kinds["keep"], kinds["compile"], kinds["gpus"]) == (int, float, bool, int)
    assert (kinds["fps"], kinds["format"], kinds["strategy"]) == (Fraction, str, str)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["extract", "--kepp", "0.1"], "extract: --kepp is not an option: did you mean --keep?"),
        (["extract", "--kee", "0.1"], "--kee is not an option: did you mean --keep?"),
        (["extract", "--layer", "deep"], "argument --layer: invalid int value: 'deep'"),
        (["inspect", "a", "b"], "b is one argument too many"),
        (["extarct"], "extarct is not a command: did you mean extract?"),
        (["--verison"], "--verison is not an option of vtm itself"),
        (["bench", "decode", "film.mp4", "--fsp", "2"], "bench decode: --fsp is not an option: did you mean --fps?"),
        (["extract", "a.mp4", "--out", "o", "--strategy", "tre"], "did you mean tree?"),
    ],
)
def test_a_typo_is_answered_with_the_nearest_name(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert expected in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert not captured.out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    import pipeline

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vtm {pipeline.__version__}\n"


def test_a_closed_pipe_is_quiet(done: Path) -> None:
    command = [sys.executable, "-m", "jobs.cli", "inspect", str(done)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as inspect:
        assert inspect.stdout is not None
        inspect.stdout.close()
        assert inspect.stderr is not None
        assert inspect.stderr.read() == b""
    assert inspect.returncode == 141


def test_a_limit_stops_early_and_the_same_command_goes_on(
    videos: list[Path], tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["extract", *map(str, videos), "--encoder", str(tiny_encoder), "--out", str(tmp_path / "out"), *RECIPE]
    assert main([*command, "--limit", "1", "--workers", "1"]) == 0
    assert "--limit 1 reached" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "out"), "--json"]) == 0
    totals = json.loads(capsys.readouterr().out)["totals"]
    assert 1 <= totals["clips_done"] == totals["shards"]
    assert main(command) == 0
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "out")]) == 0
    assert "11 clips" in capsys.readouterr().out


def test_quiet_shows_nothing_but_the_summary(
    videos: list[Path], tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    command = ["extract", str(tmp_path / "text.mp4"), str(videos[2]), "--encoder", str(tiny_encoder), *RECIPE]
    assert main([*command, "--out", str(tmp_path / "loud")]) == 3
    assert "failed: " in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "quiet"), "-q"]) == 3
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "1 failed" in captured.out


@pytest.mark.parametrize("name", sorted(BENCHES))
def test_every_benchmark_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["bench", name, "--help"])
    assert stop.value.code == 0
    assert f"vtm bench {name}" in capsys.readouterr().out
    undescribed = [
        action.option_strings or action.dest for action, text in bench_parser(name)[0].documented() if not text
    ]
    assert not undescribed


def test_a_default_of_0_is_shown() -> None:
    assert "random times (default: 0)" in bench_parser("engine")[0].format_full_help()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["engine", "--only", "simulated", "--videos", "0"], "--videos: 0 must be 1 or more"),
        (["engine", "--only", "inline", "--clips", "many"], "--clips: many is not a whole number"),
        (["engine", "--decode-s", "-1"], "--decode-s: -1 must be above 0"),
        (["merge", "--keep", "1.5"], "--keep: 1.5 must be at most 1"),
        (["network", "--threads", "0"], "--threads: 0 must be 1 or more"),
        (["learning", "--encoder", "e", "--scenes", "gone", "--videos", "v.mp4"], "gone/gallery holds no pictures"),
        (["search"], "give --run DIR, --pictures FOLDER with --encoder, or --clips N"),
        (["search", "--pictures", "gone"], "--pictures FOLDER needs --encoder"),
        (["tree", "v.mp4", "--encoder", "e", "--hours", "-1"], "--hours: -1 must be 0 or more"),
        (["gpu", "--dry-run", "--out", "a_file"], "--out a_file is a file"),
    ],
)
def test_a_wrong_value_of_a_benchmark_is_one_line(
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").touch()
    assert main(["bench", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert expected in line


def test_a_short_wrong_option_has_no_namesake_in_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "cache", "--labels", "l.csv", "--out", "o", "--lr", "1"]) == 2
    assert "--lr is not an option (" in capsys.readouterr().err
    assert main(["extract", "--fsp", "1"]) == 2
    assert "--fsp is not an option: did you mean --fps?" in capsys.readouterr().err


def test_a_benchmark_of_a_missing_video_is_one_line(tiny_encoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "reuse", "gone.mp4", "--encoder", str(tiny_encoder), "--layer", "-1"]) == 2
    assert capsys.readouterr().err.strip() == "vtm: gone.mp4: no such file or folder"
