"""The Ray engine: the same bytes as in one process, and no fault costs more than its own unit."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.errors import SettingsError
from pipeline.verify import verify
from tests.faulty_source import POISON, register
from tests.pipeline.runs import rows_of, run, some_videos, tiny_recipe
from tests.synthetic import make_video

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return some_videos(tmp_path_factory.mktemp("videos"))


@pytest.mark.parametrize(("workers", "unit_clips"), [(1, 10), (2, 2), (3, 1)])
def test_same_bytes_as_in_one_process(
    videos: list[Path], tiny_encoder: Path, tmp_path: Path, workers: int, unit_clips: int
) -> None:
    recipe = tiny_recipe(tiny_encoder, strategy="coverage")
    run(videos, tmp_path / "inline", recipe)
    summary = run(videos, tmp_path / "ray", recipe, engine="ray", workers=workers, unit_clips=unit_clips)
    assert summary.exit_code == 0
    assert rows_of(tmp_path / "ray") == rows_of(tmp_path / "inline")
    assert verify(tmp_path / "ray").is_sound
    assert summary.tally.clips == 11
    assert summary.tally.decode.cpu_s > 0
    assert 0 < summary.tally.efficiency <= 1.5


def poisoned(folder: Path) -> Path:
    """Uncompressed, so large that a reader's buffer holds less than a clip; the poison lies in the sixth second."""
    path = make_video(folder / "poisoned.avi", frames=251, fps=25, codec="rawvideo", size=(160, 240))
    data = bytearray(path.read_bytes())
    at = int(len(data) * 5.5 / 10)
    data[at : at + len(POISON)] = POISON
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("fault", "failure"), [("hang", "timeout"), ("crash", "crash")])
def test_a_fault_while_scanning_costs_its_video(
    videos: list[Path], tiny_encoder: Path, tmp_path: Path, fault: str, failure: str
) -> None:
    register()
    inputs = [videos[0], _listed(tmp_path, f"{fault}://{poisoned(tmp_path)}"), videos[1]]
    summary = run(inputs, tmp_path / "out", tiny_recipe(tiny_encoder), engine="ray", unit_timeout_s=6)
    assert summary.exit_code == 3
    assert [(failed.failure, failed.attempts) for failed in summary.failures] == [(failure, 3)]
    assert summary.clips == 7 + 3
    assert verify(tmp_path / "out").is_sound


@pytest.mark.parametrize(("fault", "failure"), [("hang-later", "timeout"), ("crash-later", "crash")])
def test_a_fault_while_decoding_costs_its_unit(
    videos: list[Path], tiny_encoder: Path, tmp_path: Path, fault: str, failure: str
) -> None:
    register()
    inputs = [videos[0], _listed(tmp_path, f"{fault}://{poisoned(tmp_path)}"), videos[1]]
    out = tmp_path / "out"
    summary = run(inputs, out, tiny_recipe(tiny_encoder), engine="ray", unit_timeout_s=6)
    assert summary.exit_code == 3
    (failed,) = summary.failures
    assert (failed.failure, failed.attempts) == (failure, 3)
    # Seven clips of 1.5 s: the poison is in the fourth clip, and costs only clips whose bytes are read with it.
    assert 3_000_000_000 <= failed.start_ns <= 5_500_000_000 < failed.end_ns <= 7_500_000_000
    lost = (failed.end_ns - failed.start_ns) // 1_500_000_000
    assert summary.clips == 7 + 7 + 3 - lost
    assert verify(out).is_sound


def _listed(folder: Path, uri: str) -> Path:
    """Addresses of unknown protocols come in by a list file."""
    path = folder / "list.txt"
    path.write_text(uri + "\n")
    return path


def test_resumes_on_ray(videos: list[Path], tiny_encoder: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tiny_encoder)
    out = tmp_path / "out"
    run(videos, out, recipe)
    whole = rows_of(out)
    for path in sorted((out / "commits").iterdir())[:2]:
        path.unlink()
    summary = run(videos, out, recipe, engine="ray")
    assert summary.tally.shards == 2
    assert rows_of(out) == whole


def test_more_workers_than_cores_share_them(videos: list[Path], tiny_encoder: Path, tmp_path: Path) -> None:
    summary = run(videos, tmp_path / "out", tiny_recipe(tiny_encoder), engine="ray", workers=9)
    assert (summary.exit_code, summary.clips, summary.tally.num_decoders) == (0, 11, 9)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("encoder-raises", "this clip cannot be encoded"),
        ("encoder-dies", "the process of encode worker"),
        ("encoder-hangs", "no progress for"),
    ],
)
def test_a_clip_that_the_encoder_cannot_take_costs_itself(
    videos: list[Path], tiny_encoder: Path, tmp_path: Path, name: str, message: str
) -> None:
    poisoned_video = tmp_path / f"{name}.mp4"
    poisoned_video.write_bytes(videos[0].read_bytes() + b"x")
    out, recipe = tmp_path / "out", tiny_recipe(tiny_encoder)
    summary = run([poisoned_video, *videos], out, recipe, engine="ray", encode_timeout_s=8)
    assert summary.exit_code == 3
    (failed,) = summary.failures
    assert (failed.failure, failed.attempts, failed.stage) == ("encode", 3, "encode")
    assert (failed.start_ns, failed.end_ns) == (3_000_000_000, 4_500_000_000)
    assert message in failed.message
    assert failed.node
    assert summary.clips == 7 + 11 - 1
    assert verify(out).is_sound
    # What failed is tried again on request; this process's encoder has no such fault.
    again = run([poisoned_video, *videos], out, recipe, retry_failed=True)
    assert (again.exit_code, again.tally.clips, again.clips) == (0, 1, 18)
    assert verify(out).is_sound


def test_too_many_gpus_is_one_clear_error_at_once(videos: list[Path], tiny_encoder: Path, tmp_path: Path) -> None:
    began_s = time.monotonic()
    with pytest.raises(SettingsError, match=r"8 GPUs are asked for and the one node of the cluster have 0"):
        run(videos, tmp_path / "out", tiny_recipe(tiny_encoder), engine="ray", gpus=8)
    assert time.monotonic() - began_s < 10
    assert not (tmp_path / "out").exists()


def test_it_starts_its_own_ray_beside_another(videos: list[Path], tiny_encoder: Path, tmp_path: Path) -> None:
    """The session's Ray is the machine's present one, which a plain `ray.init` would join, with its settings."""
    arguments = ["extract", str(videos[2]), "--encoder", str(tiny_encoder), "--out", str(tmp_path / "out")]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", *arguments, "--engine", "ray", "--gpus", "0"],
        env=environment | {"PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert verify(tmp_path / "out").is_sound
