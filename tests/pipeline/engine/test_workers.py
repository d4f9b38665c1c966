"""Workers in this process: what they count as progress, by which long work is told from a worker that hangs."""

from __future__ import annotations

from pathlib import Path

from pipeline.encode.devices import this_device
from pipeline.engine.decode_worker import DecodeWorker
from pipeline.engine.encode_worker import EncodeWorker
from pipeline.engine.write_worker import WriteWorker
from pipeline.inputs.named import Input
from pipeline.plan.units import Clip, Unit
from pipeline.run import prepare
from pipeline.settings import Execution
from pipeline.store import open_store
from tests.pipeline.runs import tiny_recipe
from tests.synthetic import make_video


def test_every_kind_of_work_counts_steps(tiny_encoder: Path, tmp_path: Path) -> None:
    path = make_video(tmp_path / "film.mp4", frames=101, fps=25)
    recipe = tiny_recipe(tiny_encoder, clip_frames=7, batch_frames=2)
    job = prepare(open_store(tmp_path / "out"), recipe, Execution(engine="inline", gpus=0), this_device("cpu"))
    decoder, encoder, writer = DecodeWorker(job), EncodeWorker(job), WriteWorker(job)
    for worker in (decoder, encoder, writer):
        worker.start()

    video = decoder.scan(Input(uri=str(path)))
    scanned = decoder.steps.count
    assert scanned > 0
    video_id = video.source.video_id
    decoded = decoder.decode(Clip(video_id, 0), str(path), Unit(video_id, 0, 2))
    assert decoder.steps.count > scanned
    _, encoded = encoder.encode(decoded, str(path))
    assert encoder.steps.count == 4, "seven frames in batches of two"
    writer.write("a" * 16, [encoded], [])
    assert writer.steps.count > 0
    decoder.close()
