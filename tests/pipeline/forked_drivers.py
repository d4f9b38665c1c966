"""Drivers as processes of their own, forked from one that has imported everything: for tests that need many of them.

    python -m tests.pipeline.forked_drivers kill ENCODER OUT VIDEO...  one killed after each operation of its store
    python -m tests.pipeline.forked_drivers two ENCODER OUT VIDEO...   two at once, in two orders of inputs, three times

Prints one line of JSON. Nothing is computed before the forks, so that no thread is lost in them.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import pipeline.encode.clip_encoder
import pipeline.engine.inline_executor
import pipeline.engine.worker_types
import pipeline.run
import pipeline.shards.parquet
import pipeline.shards.webdataset
import pipeline.video
from pipeline.shards import commits
from pipeline.store import HashingFile
from pipeline.store.disk import DiskStore
from pipeline.verify import verify
from tests.pipeline.runs import RecordingListener, run, tiny_recipe

KILLED = 77


def fork(child: Callable[[], int]) -> int:
    """Begin a child; its exit code is what the function returns."""
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        torch.set_num_threads(1)
        code = child()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    """The exit code of a child."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@contextmanager
def killed_after(number: int, names: list[str], told: Path) -> Iterator[None]:
    """End the process, without a word, after so many operations of a store that change it; 0: never.

    Of a file that is written in pieces, before it takes its name. Which operation it was is written to `told`.
    """
    real = DiskStore.put, DiskStore.delete, DiskStore.writer

    def done(what: str, name: str) -> None:
        names.append(f"{what} {name}")
        if len(names) == number:
            told.write_text(names[-1])
            os._exit(KILLED)

    def put(self: DiskStore, name: str, data: bytes, **how: Any) -> None:
        real[0](self, name, data, **how)
        done("put", name)

    def delete(self: DiskStore, name: str) -> None:
        real[1](self, name)
        done("delete", name)

    @contextmanager
    def writer(self: DiskStore, name: str) -> Iterator[HashingFile]:
        with real[2](self, name) as stream:
            yield stream
            stream._stream.flush()
            done("write", name)

    DiskStore.put, DiskStore.delete, DiskStore.writer = put, delete, writer  # type: ignore[method-assign]
    try:
        yield
    finally:
        DiskStore.put, DiskStore.delete, DiskStore.writer = real  # type: ignore[method-assign]


def kill_after_each(encoder: Path, out: Path, videos: list[str]) -> dict[str, Any]:
    """Kill a driver after each operation, and run the same again; what each second run left, by operation."""
    commits.GATHER_FROM = 2

    def drive(where: Path, number: int) -> int:
        names: list[str] = []
        forms = ("parquet", "webdataset")
        with killed_after(number, names, where.with_suffix(".operation")):
            code = run(videos, where, tiny_recipe(encoder), format=forms, workers=1, shard_clips=2).exit_code
        if not number:
            where.with_suffix(".operations").write_text("\n".join(names))
        return code

    def resume(where: Path) -> int:
        is_sound_too_early = (where / "run.json").exists() and verify(where).is_sound
        code = drive(where, 0)
        verdict = verify(where)
        where.with_suffix(".json").write_text(
            json.dumps(
                {"code": code, "problems": verdict.problems, "clips": verdict.clips, "early": is_sound_too_early}
            )
        )
        return 0

    whole = out / "whole"
    assert ended(fork(lambda: drive(whole, 0))) == 0
    operations = whole.with_suffix(".operations").read_text().splitlines()
    found: dict[str, Any] = {}
    # The order of operations may differ from run to run: each says itself where it was killed. The last ones are not
    # waited for, as another run may have fewer.
    for number in range(1, len(operations)):
        where = out / f"{number:03d}"
        code = ended(fork(lambda where=where, number=number: drive(where, number)))  # type: ignore[misc]
        assert ended(fork(lambda where=where: resume(where))) == 0  # type: ignore[misc]
        operation = where.with_suffix(".operation")
        found[f"{number:03d} {operation.read_text() if operation.exists() else 'none'}"] = json.loads(
            where.with_suffix(".json").read_text()
        ) | {"killed": code}
    return found


def two_at_once(encoder: Path, out: Path, videos: list[str]) -> list[dict[str, Any]]:
    """Two drivers of one run, one of which is not asked for the first video; three times."""
    return [_two(encoder, out / str(number), videos) for number in range(3)]


def _two(encoder: Path, out: Path, videos: list[str]) -> dict[str, Any]:

    def drive(names: list[str], said: Path) -> int:
        listener = RecordingListener()
        summary = run(names, out, tiny_recipe(encoder), listener=listener)
        said.write_text(json.dumps({"code": summary.exit_code, "notes": listener.notes}))
        return 0

    said = [out.with_suffix(f".{number}.json") for number in range(2)]
    children = [
        fork(lambda names=names, path=path: drive(names, path))  # type: ignore[misc]
        for names, path in zip((videos, videos[:0:-1]), said, strict=True)
    ]
    return {"ended": [ended(child) for child in children], "said": [json.loads(path.read_text()) for path in said]}


if __name__ == "__main__":
    assert all((pipeline.encode.clip_encoder, pipeline.engine, pipeline.run, pipeline.shards, pipeline.video))
    how, *arguments = sys.argv[1:]
    does = {"kill": kill_after_each, "two": two_at_once}[how]
    print(json.dumps(does(Path(arguments[0]), Path(arguments[1]), arguments[2:])))
