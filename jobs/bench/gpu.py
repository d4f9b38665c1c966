"""`vtm bench gpu`: the tests and figures of a GPU, each step a process of its own that may fail without the others.

Needs no network: weights are random, a video is `.cache/film.mp4` or one that is made here. `--dry-run` takes the same
steps on a CPU, in small, to show that they work where there is no GPU; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jobs.bench.gpu_table import markdown
from jobs.bench.machine import machine_name
from pipeline.errors import SettingsError

FILM = Path(".cache/film.mp4")
TESTS = Path("tests")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One measurement or test."""

    name: str
    command: tuple[str, ...]
    """Arguments of Python. What it prints last is JSON, but for tests."""
    needs: tuple[str, ...] = ()
    """Packages without which it is left out."""
    limit_s: float = 600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the results go, and which steps."""
    parser.add_argument(
        "--out", type=Path, default=Path("out/gpu"), metavar="DIR", help="folder for gpu.json and gpu.md"
    )
    parser.add_argument("--video", type=Path, help=f"video to extract (default: {FILM}, or else one that is made here)")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="steps to take, by the beginnings of their names (default: all)"
    )
    parser.add_argument("--dry-run", action="store_true", help="the same steps on a CPU, in small")


def run(args: argparse.Namespace) -> int:
    """Take the steps; returns 0 if none failed, else 1.

    Raises:
        SettingsError: there is no GPU, or no step of that name.
    """
    if not args.dry_run and not torch.cuda.is_available():
        raise SettingsError("there is no GPU that torch can use: --dry-run takes the same steps on a CPU, in small")
    machine = machine_name("cpu" if args.dry_run else "cuda")
    if args.out.exists() and not args.out.is_dir():
        raise SettingsError(f"--out {args.out} is a file: name a folder")
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        video = _video(args, Path(scratch))
        steps = small_steps(video, Path(scratch)) if args.dry_run else gpu_steps(video, Path(scratch))
        if args.only:
            steps = [step for step in steps if step.name.startswith(tuple(args.only))]
        if not steps:
            raise SettingsError(f"--only {' '.join(args.only)} is the beginning of no step's name")
        results = []
        for step in steps:
            results.append(take(step))
            print(_line(results[-1]), flush=True)
    report = {"machine": machine, "dry_run": args.dry_run, "steps": results}
    (args.out / "gpu.json").write_text(json.dumps(report, indent=1) + "\n")
    (args.out / "gpu.md").write_text(markdown(report))
    print(f"{args.out / 'gpu.json'}, {args.out / 'gpu.md'}")
    return int(any(result["outcome"] == "failed" for result in results))


def gpu_steps(video: Path, scratch: Path) -> list[Step]:
    """What is measured on a GPU."""
    steps = [Step(name="tests", command=("-m", "pytest", "-q", "-m", "gpu", str(TESTS)), needs=("pytest",))]
    for size in ("vit-s14", "vit-l14"):
        for batch in (20, 60, 256):
            options = ("--random", size, "--batch-frames", str(batch), "--repeats", "6", "--compile")
            steps.append(_bench("encoder", f"{size} batch {batch}", options, needs=("transformers",)))
    steps.append(_bench("merge", "", ("--dim", "384", "1024")))
    steps.append(_bench("network", "", ()))
    for size, layer in (("vit-s14", "9"), ("vit-l14", "-1")):
        weights = ("--random", size, "--video", str(video), "--scratch", str(scratch))
        steps.append(_check("profile", size, (*weights, "--layer", layer, "--clips", "10")))
        steps.append(_check("pipeline", size, (*weights, "--layer", layer)))
        steps.append(_check("pipeline", f"{size}, nvdec", (*weights, "--layer", layer, "--decoder", "nvdec")))
    small = ("--random", "vit-s14", "--video", str(video), "--scratch", str(scratch))
    steps.append(_check("decode", "libavcodec, NVDEC", (*small, "--clips", "10")))
    steps.append(_check("reuse", "vit-s14", small))
    steps.append(_check("same-bytes", "inline", (*small, "--engine", "inline")))
    steps.append(_check("same-bytes", "ray, one encoder killed", (*small, "--engine", "ray", "--kill"), ("ray",)))
    nvdec = (*small, "--engine", "ray", "--decoder", "nvdec")
    steps.append(_check("same-bytes", "ray, nvdec", nvdec, ("ray",)))
    steps.append(_check("resume", "training", ()))
    return steps


def small_steps(video: Path, scratch: Path) -> list[Step]:
    """The same, as small as they go, on a CPU."""
    small = ("--random", "tiny", "--video", str(video), "--scratch", str(scratch), "--device", "cpu")
    encoder = ("--random", "tiny", "--batch-frames", "2", "--repeats", "1", "--encoder-keep", "--device", "cpu")
    merge = ("--clip-frames", "3", "--patches", "4", "4", "--dim", "16", "--only", "tree", "naive", "--repeats", "1")
    network = ("--clip-frames", "6", "--patches", "2", "2", "--dim", "16", "--widths", "8", "--windows", "6")
    return [
        _bench("encoder", "tiny", encoder, needs=("transformers",)),
        _bench("merge", "", (*merge, "--device", "cpu")),
        _bench("network", "", (*network, "--strategy", "naive", "--attention", "fused", "--device", "cpu")),
        _check("profile", "tiny", (*small, "--clips", "2")),
        _check("decode", "libavcodec, torch", (*small, "--clips", "2")),
        _check("reuse", "tiny", small),
        _check("pipeline", "tiny", small, ("transformers", "ray")),
        _check("same-bytes", "inline", (*small, "--engine", "inline")),
        _check("same-bytes", "ray, one encoder killed", (*small, "--engine", "ray", "--kill"), ("ray",)),
        _check("resume", "training", ("--device", "cpu")),
    ]


def take(step: Step) -> dict[str, Any]:
    """Run one step; what it printed, or what went wrong."""
    missing = [name for name in step.needs if importlib.util.find_spec(name) is None]
    if missing:
        return {"name": step.name, "outcome": "left out", "error": f"{', '.join(missing)} is not installed"}
    if step.name == "tests" and not TESTS.is_dir():
        return {"name": step.name, "outcome": "left out", "error": f"there is no folder {TESTS} here"}
    began_s = time.perf_counter()
    result: dict[str, Any] = {"name": step.name, "command": " ".join(("python", *step.command)), "outcome": "passed"}
    try:
        done = subprocess.run(
            [sys.executable, *step.command],
            capture_output=True,
            text=True,
            timeout=step.limit_s,
            check=False,
            env=os.environ | {"PYTHONPATH": os.pathsep.join((str(Path.cwd()), os.environ.get("PYTHONPATH", "")))},
        )
    except subprocess.TimeoutExpired:
        return result | {"outcome": "failed", "error": f"not done after {step.limit_s:.0f} s"}
    result["wall_s"] = time.perf_counter() - began_s
    lines = (done.stdout if done.returncode == 0 or not done.stderr.strip() else done.stderr).strip().splitlines()
    if done.returncode != 0:
        return result | {"outcome": "failed", "error": "\n".join(lines[-20:])}
    if step.name == "tests":
        return result | {"told": lines[-1] if lines else ""}
    printed: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
    return result | printed


def _bench(name: str, what: str, options: Sequence[str], needs: tuple[str, ...] = ()) -> Step:
    command = ("-m", "jobs.cli", "bench", name, *options, "--json")
    return Step(name=f"{name} {what}".strip(), command=command, needs=needs)


def _check(name: str, what: str, options: Sequence[str], needs: tuple[str, ...] = ("transformers",)) -> Step:
    return Step(name=f"{name} {what}", command=("-m", "jobs.bench.gpu_checks", name, *options), needs=needs)


def _video(args: argparse.Namespace, scratch: Path) -> Path:
    if args.video is not None:
        if not args.video.is_file():
            raise SettingsError(f"--video {args.video}: no such file")
        return Path(args.video).resolve()
    if FILM.is_file() and not args.dry_run:
        return FILM.resolve()
    from jobs.bench.made_video import make_video

    return make_video(scratch / "made.mp4", length_s=7 if args.dry_run else 600)


def _line(result: dict[str, Any]) -> str:
    wall = f"{result['wall_s']:.0f} s" if "wall_s" in result else ""
    error = result.get("error", "").splitlines()
    return f"{result['outcome']:9} {result['name']:34} {wall:>6}  {error[-1] if error else ''}".rstrip()
