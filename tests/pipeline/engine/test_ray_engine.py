"""The Ray engine: the same bytes as in one process, and no fault costs more than its own unit."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import SettingsError
from pipeline.verify import verify
from tests.faulty_source import POISON, PROTOCOLS, register
from tests.pipeline.runs import rows_of, run, some_videos, tiny_recipe
from tests.synthetic import make_video

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return some_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="module")
def inline(videos: list[Path], tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same work in one process."""
    out = tmp_path_factory.mktemp("inline") / "out"
    run(videos, out, tiny_recipe(tiny_encoder))
    return rows_of(out)


@pytest.mark.parametrize(("workers", "unit_clips"), [(1, 10), (2, 2), (3, 1)])
def test_same_bytes_as_in_one_process(
    videos: list[Path], inline: dict[str, Any], tiny_encoder: Path, tmp_path: Path, workers: int, unit_clips: int
) -> None:
    out = tmp_path / "ray"
    summary = run(videos, out, tiny_recipe(tiny_encoder), engine="ray", workers=workers, unit_clips=unit_clips)
    assert summary.exit_code == 0
    assert rows_of(out) == inline
    assert verify(out).is_sound
    assert summary.tally.clips == 11
    assert summary.tally.decode.cpu_s > 0
    assert 0 < summary.tally.efficiency <= 1.5


def test_more_workers_than_cores_resume_a_run(
    videos: list[Path], inline: dict[str, Any], tiny_encoder: Path, tmp_path: Path
) -> None:
    recipe, out = tiny_recipe(tiny_encoder), tmp_path / "out"
    run(videos, out, recipe)
    for path in sorted((out / "commits").iterdir())[:2]:
        path.unlink()
    summary = run(videos, out, recipe, engine="ray", workers=5)
    assert (summary.exit_code, summary.tally.shards, summary.tally.num_decoders) == (0, 2, 5)
    assert rows_of(out) == inline


def poisoned(folder: Path, number: int) -> Path:
    """Uncompressed, so large that a reader's buffer holds less than a clip; the poison lies in the sixth second."""
    path = make_video(folder / f"poisoned-{number}.avi", frames=251, fps=25, codec="rawvideo", size=(160, 240))
    data = bytearray(path.read_bytes())
    at = int(len(data) * 5.5 / 10)
    data[at : at + len(POISON)] = POISON
    # No two of them are the same video.
    path.write_bytes(data + bytes([number]))
    return path


@pytest.mark.timeout(600)
def test_decoders_that_hang_or_crash_cost_what_they_were_at(
    videos: list[Path], tiny_encoder: Path, tmp_path: Path
) -> None:
    register()
    uris = [f"{fault}://{poisoned(tmp_path, i)}" for i, fault in enumerate(PROTOCOLS)]
    # Addresses of unknown protocols come in by a list file.
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(uris))
    out = tmp_path / "out"
    inputs = [videos[0], listed, videos[1]]
    summary = run(inputs, out, tiny_recipe(tiny_encoder), engine="ray", workers=4, unit_timeout_s=3)
    assert summary.exit_code == 3
    failures = {failed.uri.split("://")[0]: failed for failed in summary.failures}
    assert {name: (failed.failure, failed.stage, failed.attempts) for name, failed in failures.items()} == {
        "hang": ("timeout", "scan", 3),
        "crash": ("crash", "scan", 3),
        "hang-later": ("timeout", "decode", 3),
        "crash-later": ("crash", "decode", 3),
    }
    lost = 0
    for name in ("hang-later", "crash-later"):
        # Seven clips of 1.5 s: the poison is in the fourth clip, and costs only clips whose bytes are read with it.
        start_ns, end_ns = failures[name].start_ns, failures[name].end_ns
        assert 3_000_000_000 <= start_ns <= 5_500_000_000 < end_ns <= 7_500_000_000
        lost += (end_ns - start_ns) // 1_500_000_000
    assert summary.clips == 7 + 3 + 2 * 7 - lost
    assert verify(out).is_sound


@pytest.mark.timeout(600)
def test_clips_that_the_encoder_cannot_take_cost_themselves(
    videos: list[Path], tiny_encoder: Path, tmp_path: Path
) -> None:
    messages = {
        "encoder-raises": "this clip cannot be encoded",
        "encoder-dies": "the process of encode worker",
        "encoder-hangs": "no progress for",
    }
    poisoned_videos = [tmp_path / f"{name}.mp4" for name in (*messages, "encoder-breaks")]
    for i, path in enumerate(poisoned_videos):
        path.write_bytes(videos[0].read_bytes() + bytes([i]))
    out, recipe = tmp_path / "out", tiny_recipe(tiny_encoder)
    summary = run([*poisoned_videos, *videos], out, recipe, engine="ray", encode_timeout_s=3)
    assert summary.exit_code == 3
    failures = {Path(failed.uri).stem: failed for failed in summary.failures}
    # A device that breaks costs its process, and no clip.
    assert failures.keys() == messages.keys()
    for name, failed in failures.items():
        assert (failed.failure, failed.attempts, failed.stage) == ("encode", 3, "encode")
        assert (failed.start_ns, failed.end_ns) == (3_000_000_000, 4_500_000_000)
        assert messages[name] in failed.message
        assert failed.node
    assert summary.clips == 4 * 7 + 11 - 3
    assert poisoned_videos[-1].with_suffix(".broke").exists()
    assert verify(out).is_sound
    # What failed is tried again on request; this process's encoder has no such fault.
    again = run([*poisoned_videos, *videos], out, recipe, retry_failed=True)
    assert (again.exit_code, again.tally.clips, again.clips) == (0, 3, 4 * 7 + 11)
    assert verify(out).is_sound


def test_too_many_gpus_is_one_clear_error_at_once(
    videos: list[Path], tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: pytest.fail("it waits for GPUs"))
    monkeypatch.setattr("pipeline.engine.ray_cluster.time", waiting)
    with pytest.raises(SettingsError, match=r"--gpus 8: the cluster has 0 GPUs on 1 node: give --device cpu"):
        run(videos, tmp_path / "out", tiny_recipe(tiny_encoder), engine="ray", gpus=8)
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
