"""300 videos of which 100 are broken in ten ways: all recorded with the right class, all others whole, and mended."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from pipeline.repair import repair
from pipeline.settings import Execution
from pipeline.shards.commits import read_manifests
from pipeline.verify import verify
from tests.pipeline.runs import RecordingListener, rows_of, run, tiny_recipe
from tests.synthetic import make_video

WHOLE, BROKEN = 200, 100


def many(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The names of all inputs, and the class of failure that each broken one is to have."""
    models = [
        make_video(folder / "model-a.mp4", frames=20, fps=10, gop=5, size=(32, 48)),
        make_video(folder / "model-b.mkv", frames=20, fps=10, gop=5, codec="mpeg4", size=(32, 48)),
        make_video(folder / "model-c.avi", frames=20, fps=10, gop=5, codec="mpeg4", size=(32, 48)),
    ]
    names, expected = [], {}
    for number in range(WHOLE):
        model = models[number % 3]
        path = folder / f"whole-{number:03d}{model.suffix}"
        # Bytes behind the end make another content of the same video.
        path.write_bytes(model.read_bytes() + bytes([number]) * (number + 1))
        names.append(str(path))
    mp4, mkv, _ = (model.read_bytes() for model in models)
    for number in range(BROKEN):
        kind, salt = number % 10, bytes([number]) * 9
        path = folder / f"broken-{number:03d}.mp4"
        failure = "io" if kind in (6, 7) else "corrupt"
        if kind == 0:
            path.write_bytes(b"")
        elif kind == 1:
            path.write_bytes(b"no video at all " * 9 + salt)
        elif kind == 2:
            path.write_bytes(mp4[: len(mp4) // 3] + salt)
        elif kind == 3:
            path.write_bytes(bytes(4096) + salt)
        elif kind == 4:
            path.write_bytes(random.Random(number).randbytes(5000))
        elif kind == 5:
            path.write_bytes(mkv[:40] + salt)
        elif kind == 6:
            path.symlink_to(folder / f"nowhere-{number}")
        elif kind == 7:
            pass  # named, and not there
        elif kind == 8:
            path.write_bytes(b"RIFF\x10\0\0\0AVI LIST" + salt)
        else:
            path.write_bytes(b"<html>404</html>" + salt)
        names.append(str(path))
        expected[str(path)] = failure
    random.Random(0).shuffle(names)
    return names, expected


@pytest.mark.slow
def test_three_hundred(tiny_encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    names, expected = many(tmp_path / "films")
    (tmp_path / "list.jsonl").write_text("\n".join(json.dumps({"uri": name}) for name in names))
    out = tmp_path / "out"
    summary = run([tmp_path / "list.jsonl"], out, tiny_recipe(tiny_encoder), shard_clips=8)
    assert summary.exit_code == 3
    failures = {failed.uri: failed.failure for failed in summary.failures}
    wrong = {uri: (failures.get(uri), want) for uri, want in expected.items() if failures.get(uri) != want}
    assert not wrong
    assert len(failures) == BROKEN
    verdict = verify(out)
    assert verdict.problems == ()
    clips = Counter(unit.video_id for m in read_manifests(out).values() for unit in m.clips for _ in unit.clips)
    assert len(clips) == WHOLE
    assert set(clips.values()) == {2}

    before = rows_of(out)
    shards = sorted((out / "shards").iterdir())
    random.Random(1).shuffle(shards)
    stamps = {path: path.stat().st_mtime_ns for path in shards}
    for path in shards[:5]:
        path.unlink()
    for path in shards[5:10]:
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    execution = Execution(engine="inline", gpus=0, workers=2, unit_clips=2, shard_clips=8)
    done = repair(out, execution, RecordingListener())
    assert done.after.problems == ()
    assert rows_of(out) == before
    made = {path for path in shards if path.stat().st_mtime_ns != stamps[path]}
    assert made == set(shards[:10])
