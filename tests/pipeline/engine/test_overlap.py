"""Two clips in an encoder at once, as on a GPU: the same bytes as one after the other, and time counted once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.encode.clip_encoder import ClipEncoder
from pipeline.engine.decode_worker import Decoded
from pipeline.engine.encode_worker import EncodeWorker
from pipeline.engine.job import Job, StageTime
from tests.pipeline.runs import rows_of, run, some_videos, tiny_recipe


@pytest.mark.usefixtures("local_ray")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("engine", ["inline", "ray"])
def test_same_bytes(engine: Any, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = some_videos(tmp_path)
    run(videos, tmp_path / "apart", tiny_recipe(tiny_encoder))
    monkeypatch.setattr(Job, "encode_calls_at_once", property(lambda job: 2))
    summary = run(videos, tmp_path / "together", tiny_recipe(tiny_encoder), engine=engine)
    assert summary.exit_code == 0
    assert rows_of(tmp_path / "together") == rows_of(tmp_path / "apart")


def test_time_in_which_two_clips_overlap_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now_s)
    worker = EncodeWorker(SimpleNamespace(), lambda: 0.0)  # type: ignore[arg-type]
    tokens = SimpleNamespace(
        video_id="v", clip_index=0, end_ns=1, start_ns=0, damaged_frames=0, sizes=[1], group=[0], encoded_patches=None
    )

    class Encoder:
        def launch(self, clip: float) -> float:
            return clip

        def finish(self, takes_s: float, uri: str) -> Any:
            nonlocal now_s
            now_s += takes_s
            return tokens

    worker._encoder = Encoder()
    first, _ = worker.encode(Decoded(5.0, StageTime()), "a")  # type: ignore[arg-type]
    assert first.encode.wall_s == 5.0
    # As if another clip had been done one second after this one was launched.
    worker._free_s = now_s + 1.0
    second, _ = worker.encode(Decoded(2.0, StageTime()), "a")  # type: ignore[arg-type]
    assert second.encode.wall_s == 1.0


def test_an_encoder_beside_decoders_has_all_threads(
    tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoders of the same process set one thread each; the encoder once had only that."""
    seen: list[int] = []
    launch = ClipEncoder.launch

    def watched(self: ClipEncoder, clip: Any) -> Any:
        seen.append(torch.get_num_threads())
        return launch(self, clip)

    monkeypatch.setattr(ClipEncoder, "launch", watched)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        run(some_videos(tmp_path), tmp_path / "out", tiny_recipe(tiny_encoder))
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {3}
