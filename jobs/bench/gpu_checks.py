"""Steps of `vtm bench gpu` that no other benchmark takes: `python -m jobs.bench.gpu_checks NAME`. Each prints JSON."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import torch

from jobs.bench.encoder import random_checkpoint
from jobs.bench.gpu_decode import decode_by_both
from jobs.bench.gpu_profile import profile
from jobs.bench.numbers import count
from jobs.cli import main as run_command
from jobs.progress import Silence
from pipeline.counted import counted
from pipeline.settings import EngineName, Execution, Recipe
from pipeline.values import DecoderName


def main(argv: list[str] | None = None) -> int:
    """Take one step."""
    parser = argparse.ArgumentParser(prog="python -m jobs.bench.gpu_checks", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("name", choices=CHECKS, help="the step")
    parser.add_argument("--random", default="tiny", help="size of the random encoder")
    parser.add_argument("--layer", type=int, default=-1, help="block whose output is taken; -1 is the last")
    parser.add_argument("--video", type=Path, help="video to extract")
    parser.add_argument("--scratch", type=Path, help="folder of the random encoder")
    parser.add_argument("--decoder", choices=get_args(DecoderName), default="libav", help="what decodes")
    parser.add_argument("--device", default="cuda", help="cpu, cuda or cuda:1")
    parser.add_argument("--clips", type=count, default=10, help="clips to profile")
    parser.add_argument("--engine", choices=("inline", "ray"), default="inline", help="engine of the second run")
    parser.add_argument("--kill", action="store_true", help="kill an encoder's process in the middle of the run")
    args = parser.parse_args(argv)
    # Other output would hide the JSON.
    with redirect_stdout(sys.stderr):
        rows = CHECKS[args.name](args)
    print(json.dumps({"rows": rows}))
    return 0


def profile_clips(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Ten clips through an encoder, decoded beforehand."""
    return profile(_recipe(args), str(args.video), args.device, args.clips)


def compare_bytes(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A run, twice: the second one on another engine if one is named, with an encoder killed if asked for."""
    recipe = _recipe(args)
    with tempfile.TemporaryDirectory() as folder:
        first = _extracted(recipe, args, Path(folder) / "first", "inline")
        victims: list[int] = []
        if args.kill:
            threading.Thread(target=_kill_an_encoder, args=(victims,), daemon=True).start()
        second = _extracted(recipe, args, Path(folder) / "second", args.engine)
        if args.kill and not victims:
            raise RuntimeError("the run was over before an encoder could be killed: give a longer video")
    differing = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
    if differing:
        raise RuntimeError(f"{len(differing)} of {len(first)} clips differ: {', '.join(differing[:5])}")
    return [{"name": f"{counted(len(first), 'clip')} with the same bytes", "killed": len(victims)}]


def compare_decoders(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The first clips by libavcodec and by NVDEC."""
    return decode_by_both(_recipe(args), str(args.video), args.clips)


def bench_pipeline(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of `vtm bench pipeline` on random weights."""
    from jobs.bench.pipeline import measure

    execution = Execution(device=args.device, gpus=0 if args.device == "cpu" else None)
    return measure(str(args.video), _recipe(args), execution)


def bench_reuse(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of `vtm bench reuse` on random weights."""
    shown = io.StringIO()
    command = ["bench", "reuse", str(args.video), "--encoder", str(_weights(args)), "--layer", "-1", "--clips", "2"]
    command += ["--reuse-levels", "4", "--repeats", "1", "--device", args.device, "--json"]
    with redirect_stdout(shown):
        code = run_command([*command, "--clip-frames", str(_clip_frames(args))])
    if code:
        raise RuntimeError(f"vtm {' '.join(command)} ended with exit code {code}")
    rows: list[dict[str, Any]] = json.loads(shown.getvalue())["rows"]
    return rows


def resume_training(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Weights of a network trained in one go, against one that was stopped after an epoch and went on."""
    from vtm.network import NetworkConfig, VideoTokenMerging
    from vtm.training import ClipBatch, TrainingSettings, TrainingTask, labelled_objective, train

    grid, width = (12, 6, 6), 96
    config = NetworkConfig(in_width=width, outputs=2, widths=(64, 48), windows_frames=(3, 6), heads=2, head_width=32)

    def batches(epoch: int) -> Iterator[ClipBatch]:
        generator = torch.Generator().manual_seed(epoch)
        for index in range(3):
            patches = torch.randn(4, 432, width, generator=generator)
            target = torch.arange(4) % 2
            patches[..., 0] += 2.0 * target[:, None] - 1
            seeds = tuple(100 * epoch + 10 * index + i for i in range(4))
            yield ClipBatch(patches=patches, grid=grid, seeds=seeds, target=target, videos=tuple(map(str, seeds)))

    task: TrainingTask[VideoTokenMerging] = TrainingTask(
        objective=labelled_objective(),
        batches=batches,
        steps_per_epoch=3,
        validate=lambda model: {"accuracy": 0.0},
        scores=("accuracy",),
        keep_best=lambda _: None,
    )

    def trained(folder: Path, epochs: int) -> VideoTokenMerging:
        torch.manual_seed(1)
        network = VideoTokenMerging(config).to(args.device)
        train(network, task, TrainingSettings(epochs=epochs, warmup_epochs=1, learning_rate=1e-3), folder)
        return network

    with tempfile.TemporaryDirectory() as scratch:
        whole = trained(Path(scratch) / "whole", 3).state_dict()
        again = trained(Path(scratch) / "again", 3).state_dict()
        trained(Path(scratch) / "parts", 1)
        parts = trained(Path(scratch) / "parts", 3).state_dict()
    return [
        {"name": name, "largest_difference": max(float((whole[key] - other[key]).abs().max()) for key in whole)}
        for name, other in (("trained again", again), ("stopped and resumed", parts))
    ]


def _recipe(args: argparse.Namespace) -> Recipe:
    fps, clip_frames = (Fraction(1), 60) if args.device == "cuda" else (Fraction(2), _clip_frames(args))
    return Recipe(encoder=str(_weights(args)), layer=args.layer, fps=fps, clip_frames=clip_frames, decoder=args.decoder)


def _clip_frames(args: argparse.Namespace) -> int:
    return 60 if args.device == "cuda" else 4


def _weights(args: argparse.Namespace) -> Path:
    folder: Path = args.scratch / args.random
    return folder if (folder / "config.json").is_file() else random_checkpoint(args.random, folder)


def _extracted(recipe: Recipe, args: argparse.Namespace, out: Path, engine: EngineName) -> dict[str, str]:
    """Hash of each clip's tokens, by its id."""
    import hashlib

    from pipeline import TokenCache
    from pipeline.run import extract

    gpus = 0 if args.device == "cpu" else None
    execution = Execution(device=args.device, gpus=gpus, engine=engine, shard_clips=2, unit_clips=1)
    extract([str(args.video)], out, recipe, execution, Silence())
    return {
        clip.clip_id: hashlib.sha256(
            b"".join(array.tobytes() for array in (clip.tokens, clip.sizes, clip.group, clip.pooled))
        ).hexdigest()
        for clip in TokenCache(out, arrays="numpy")
    }


def _kill_an_encoder(victims: list[int]) -> None:
    """End the first encoder's process that this process's Ray starts, while it works."""
    until_s = time.monotonic() + 300
    while time.monotonic() < until_s:
        for folder in Path("/proc").glob("[0-9]*"):
            if _is_encoding(folder) and os.getpid() in ancestors(folder):
                os.kill(int(folder.name), signal.SIGKILL)
                victims.append(int(folder.name))
                return
        time.sleep(0.01)


def _is_encoding(folder: Path) -> bool:
    try:
        command = (folder / "cmdline").read_bytes()
    except OSError:
        return False
    return b"ray::EncodeActor" in command and b"encode" in command


def ancestors(folder: Path) -> Iterator[int]:
    """The process that started this one, the one that started that, and so on; none of one that has ended."""
    try:
        while (parent := int((folder / "stat").read_text().rpartition(")")[2].split()[1])) > 1:
            yield parent
            folder = folder.with_name(str(parent))
    except OSError:
        return


CHECKS: dict[str, Callable[[argparse.Namespace], list[dict[str, Any]]]] = {
    "decode": compare_decoders,
    "profile": profile_clips,
    "pipeline": bench_pipeline,
    "reuse": bench_reuse,
    "same-bytes": compare_bytes,
    "resume": resume_training,
}

if __name__ == "__main__":
    sys.exit(main())
