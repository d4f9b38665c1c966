"""The Ray engine: the same bytes as in one process, and no fault costs more than its own unit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.verify import verify
from tests.faulty_source import POISON, register
from tests.pipeline.runs import rows_of, run, some_videos, tiny_recipe
from tests.synthetic import make_video

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return some_videos(tmp_path_factory.mktemp("videos"))


@pytest.mark.parametrize(("workers", "unit_clips"), [(1, 10), (3, 1)])
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
    summary = run(inputs, tmp_path / "out", tiny_recipe(tiny_encoder), engine="ray", unit_timeout_s=2)
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
    summary = run(inputs, out, tiny_recipe(tiny_encoder), engine="ray", unit_timeout_s=2)
    assert summary.exit_code == 3
    (failed,) = summary.failures
    assert (failed.failure, failed.attempts) == (failure, 3)
    # Seven clips of 1.5 s in units of two: the poison is in the fourth clip, the last of its unit, or near its start.
    assert 3_000_000_000 <= failed.start_ns <= 5_500_000_000 < failed.end_ns <= 6_000_000_000
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
    for path in sorted((out / "manifests").iterdir())[:2]:
        path.unlink()
    summary = run(videos, out, recipe, engine="ray")
    assert summary.tally.shards == 2
    assert rows_of(out) == whole


def test_too_many_workers_is_one_clear_error(videos: list[Path], tiny_encoder: Path, tmp_path: Path) -> None:
    from pipeline.engine import ray_engine
    from pipeline.errors import SettingsError

    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    patience_s, ray_engine.START_TIMEOUT_S = ray_engine.START_TIMEOUT_S, 8.0
    try:
        with pytest.raises(SettingsError, match="lower --workers"):
            run(videos, tmp_path / "out", tiny_recipe(tiny_encoder), engine="ray", workers=9)
    finally:
        ray_engine.START_TIMEOUT_S = patience_s
