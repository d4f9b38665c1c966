"""Two processes on the CPU, over gloo, against one."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.vtm.training.conftest import clip_batches, clip_task, small_network
from vtm.network import VideoTokenMerging
from vtm.training import (
    ClipBatch,
    RankError,
    Ranks,
    TrainingError,
    TrainingSettings,
    TrainingTask,
    labelled_objective,
    predict_videos,
    train,
)
from vtm.training.schedule import learning_rate

SETTINGS = TrainingSettings(epochs=1, warmup_epochs=0, learning_rate=1e-2, clip_norm=1.0)
COUNT = 2
SHAPES = {"odd batches": (5, 0.0), "one clip": (1, 0.5)}
"""Clips of a batch, and dropout: of one clip only what rank 0 draws may count, which is what a single process draws."""


def part_of(batch: ClipBatch, ranks: Ranks) -> ClipBatch:
    mine = list(ranks.part(range(len(batch.seeds))))
    kept = mine or [0]
    assert batch.target is not None
    return dataclasses.replace(
        batch,
        patches=batch.patches[kept],
        target=batch.target[kept],
        seeds=tuple(batch.seeds[i] for i in kept),
        videos=tuple(batch.videos[i] for i in kept),
        counts=bool(mine),
    )


def task_of(ranks: Ranks, size: int = 5) -> TrainingTask[VideoTokenMerging]:
    def batches(epoch: int) -> Iterator[ClipBatch]:
        return (part_of(batch, ranks) for batch in clip_batches(epoch, size=size))

    return clip_task(batches)


def saved(folder: Path, name: str, ranks: Ranks) -> Path:
    return folder / f"{name} {ranks.rank}.pt"


def train_scenarios(rank: int, folder: Path) -> None:
    """All that two processes do in these tests, as to start them takes longer than what they do."""
    ranks = Ranks(rank, COUNT)
    _join(ranks, folder)

    def keep(name: str, value: Any) -> None:
        torch.save(value, saved(folder, name, ranks))

    for name, (size, dropout) in SHAPES.items():
        # Weights of rank 0 are everyone's.
        network = small_network(seed=2 + rank, dropout=dropout)
        reports: list[Any] = []
        train(network, task_of(ranks, size), SETTINGS, folder / name, ranks=ranks, report=reports.append)
        keep(name, {"weights": network.state_dict(), "losses": [report.train_loss for report in reports]})
    network = small_network(dropout=0.5)
    train(network, task_of(ranks), SETTINGS, folder / "dropout", ranks=ranks)
    keep("dropout", network.state_dict())
    for name in ("from one", "to one"):
        network = small_network(dropout=0)
        settings = dataclasses.replace(SETTINGS, epochs=3 if name == "from one" else 2)
        train(network, task_of(ranks), settings, folder / name, ranks=ranks)
        keep(name, network.state_dict())
    scores = iter([0.5, 0.4, 0.6] if rank == 0 else [0.5, 0.6, 0.7])
    task = dataclasses.replace(task_of(ranks), validate=lambda _: {"accuracy": next(scores), "log_loss": 1.0})
    settings = dataclasses.replace(SETTINGS, epochs=3, patience=1)
    keep("early stopping", train(small_network(), task, settings, folder / "stopping", ranks=ranks).epochs_done)
    try:
        train(small_network(), task_of(ranks), SETTINGS, folder / "different", run=f"run {rank}", ranks=ranks)
    except TrainingError as error:
        keep("different", str(error))
    batches = ranks.part(list(clip_batches(99, size=3)))
    keep("predictions", predict_videos(small_network().eval(), batches, ranks))
    # Who leaves at once may cut off the other that still reads the last message.
    while not all(saved(folder, "predictions", Ranks(other, COUNT)).exists() for other in range(COUNT)):
        time.sleep(0.01)
    dist.destroy_process_group()
    # As the console script does: gloo's threads now and then abort an interpreter that is torn down under them.
    os._exit(0)


def lose_rank_1(rank: int, folder: Path) -> None:
    ranks = Ranks(rank, COUNT)
    _join(ranks, folder)

    def batches(epoch: int) -> Iterator[ClipBatch]:
        for index, batch in enumerate(clip_batches(epoch)):
            if (rank, index) == (1, 1):
                os._exit(0)
            yield part_of(batch, ranks)

    try:
        train(small_network(), clip_task(batches), SETTINGS, folder / "run", ranks=ranks)
    except RankError as error:
        torch.save(str(error), saved(folder, "lost", ranks))
    os._exit(0)


def _join(ranks: Ranks, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'store'}",
        rank=ranks.rank,
        world_size=ranks.count,
        timeout=timedelta(seconds=120),
    )


def in_two_processes(work: Callable[[int, Path], None], folder: Path) -> None:
    mp.spawn(work, args=(folder,), nprocs=COUNT)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left; before them, one began the run `from one`."""
    folder = tmp_path_factory.mktemp("ranks")
    train(small_network(dropout=0), clip_task(), SETTINGS, folder / "from one")
    in_two_processes(train_scenarios, folder)
    return folder


def results(folder: Path, name: str) -> list[Any]:
    return [torch.load(saved(folder, name, Ranks(rank, COUNT)), weights_only=False) for rank in range(COUNT)]


def assert_equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


def assert_close(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("name", SHAPES)
def test_two_processes_learn_what_one_does(trained: Path, tmp_path: Path, name: str) -> None:
    size, dropout = SHAPES[name]
    alone = small_network(dropout=dropout)
    before = {key: value.clone() for key, value in alone.state_dict().items()}
    reports: list[Any] = []
    task = clip_task(partial(clip_batches, size=size))
    train(alone, task, SETTINGS, tmp_path, report=reports.append)
    first, second = results(trained, name)
    assert_equal(first["weights"], second["weights"])
    assert_close(first["weights"], alone.state_dict())
    assert any((value - before[key]).abs().max() > 1e-2 for key, value in alone.state_dict().items())
    assert first["losses"] == pytest.approx([report.train_loss for report in reports], abs=1e-5)
    assert second["losses"] == [], "rank 0 alone reports"


def test_dropout_leaves_ranks_equal(trained: Path) -> None:
    assert_equal(*results(trained, "dropout"))


def test_each_rank_draws_its_own_dropout_and_the_first_as_a_single_process() -> None:
    seeds = [Ranks(rank, 3).own_seed(7) for rank in range(3)]
    assert seeds[0] == Ranks().own_seed(7) == 7
    assert len(set(seeds)) == 3
    assert seeds == [Ranks(rank, 3).own_seed(7) for rank in range(3)]
    assert seeds[1:] != [Ranks(rank, 3).own_seed(8) for rank in (1, 2)]


def test_runs_go_on_with_another_number_of_processes(trained: Path, tmp_path: Path) -> None:
    alone = small_network(dropout=0)
    for epochs in (1, 3):
        train(alone, clip_task(), dataclasses.replace(SETTINGS, epochs=epochs), tmp_path / "one then three")
    first, second = results(trained, "from one")
    assert_equal(first, second)
    assert_close(first, alone.state_dict())
    resumed, alone = small_network(dropout=0), small_network(dropout=0)
    for epochs in (2, 3):
        train(alone, clip_task(), dataclasses.replace(SETTINGS, epochs=epochs), tmp_path / "two then three")
    progress = train(resumed, clip_task(), dataclasses.replace(SETTINGS, epochs=3), trained / "to one")
    assert progress.epochs_done == 3
    assert_close(resumed.state_dict(), alone.state_dict())


def test_figures_of_rank_0_stop_all(trained: Path) -> None:
    assert results(trained, "early stopping") == [2, 2]


def test_processes_that_were_asked_for_different_runs_are_told(trained: Path) -> None:
    first, second = results(trained, "different")
    assert first == second
    assert "process 1 does not find what process 0 finds" in first


def test_processes_share_out_predictions(trained: Path) -> None:
    alone = predict_videos(small_network().eval(), clip_batches(99, size=3))
    for found in results(trained, "predictions"):
        assert found.videos == alone.videos
        assert torch.equal(found.prediction, alone.prediction)
        assert torch.equal(found.clips, alone.clips)
        assert alone.target is not None
        assert torch.equal(found.target, alone.target)


def test_a_rank_that_is_gone_ends_the_others(tmp_path: Path) -> None:
    in_two_processes(lose_rank_1, tmp_path)
    message = torch.load(saved(tmp_path, "lost", Ranks(0, COUNT)))
    assert message.startswith("another process of this training run was killed, or did not answer in time (")
    assert "\n" not in message


def test_a_step_of_several_processes_waits_for_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the device `meta` no value can be read."""
    reduced: list[torch.Size] = []
    monkeypatch.setattr(dist, "all_reduce", lambda sums: reduced.append(sums.shape))
    layer = torch.nn.Linear(3, 2, device="meta")
    loss = layer(torch.empty(5, 3, device="meta")).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    assert Ranks(1, 2).mean_gradients(layer, loss, 5).device.type == "meta"
    assert reduced == [torch.Size([3 * 2 + 2 + 2])]


def test_a_rank_is_one_of_its_count() -> None:
    with pytest.raises(TrainingError, match="ranks of 2 processes go from 0 to 1, got 2"):
        Ranks(2, 2)


def test_one_process_steps_as_a_plain_loop_does(tmp_path: Path) -> None:
    """Bit for bit: whoever does not start several processes gets the weights of before there were several."""
    trained, plain = small_network(dropout=0.3), small_network(dropout=0.3)
    settings = dataclasses.replace(SETTINGS, epochs=2, warmup_epochs=1, seed=3)
    train(trained, clip_task(), settings, tmp_path)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    for step, batch in enumerate(batch for epoch in range(2) for batch in clip_batches(epoch)):
        rate = learning_rate(step, peak=settings.learning_rate, warmup_steps=3, total_steps=6)
        optimizer.param_groups[0]["lr"] = rate
        torch.manual_seed(3 * (1 << 32) + step)
        optimizer.zero_grad()
        labelled_objective()(plain.train(), batch).backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
    assert_equal(trained.state_dict(), plain.state_dict())
