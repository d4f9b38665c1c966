"""`vtm repair` makes again what verification finds wrong, and never leaves a run with less."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import TokenCache
from pipeline.errors import RunFolderError, SettingsError
from pipeline.repair import repair
from pipeline.settings import Execution
from pipeline.shards import commits
from pipeline.shards.commits import gather, read_manifests
from pipeline.shards.manifest import write_shard
from pipeline.status import status
from pipeline.store import open_store
from pipeline.values import TokenSet
from pipeline.verify import verify
from tests.pipeline.clips_made import RUN, made_clip
from tests.pipeline.runs import RecordingListener, rows_of, run, some_videos, tiny_recipe

INLINE = Execution(engine="inline", gpus=0, workers=2, unit_clips=2, shard_clips=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def reference(folder: Path, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reference") / "out"
    assert run(some_videos(folder), out, tiny_recipe(tiny_encoder)).exit_code == 0
    return out


@pytest.fixture
def out(reference: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(reference, tmp_path / "out"))


@pytest.mark.parametrize("damage", ["garbage", "another table", "half", "empty"])
@pytest.mark.parametrize("where", ["plan/videos", "plan/inputs", "commits"])
def test_a_damaged_table_is_one_line_and_is_made_again(out: Path, reference: Path, damage: str, where: str) -> None:
    if where == "commits":
        monkeypatched, commits.GATHER_FROM = commits.GATHER_FROM, 2
        gather(open_store(out))
        commits.GATHER_FROM = monkeypatched
    table = sorted((out / where).iterdir())[0]
    if damage == "another table":
        pq.write_table(pa.table({"video_id": ["x"]}), table)
    else:
        table.write_bytes({"garbage": b"PAR1x", "half": table.read_bytes()[:-9], "empty": b""}[damage])
    with pytest.raises(RunFolderError, match=f"{table.name} is no"):
        status(out)
    assert any(f"{table.name}: cannot be read" in problem for problem in verify(out).problems)
    done = repair(out, INLINE, RecordingListener())
    left = [problem for problem in done.after.problems if "no input was ever recorded" not in problem]
    assert (left, rows_of(out)) == ([], rows_of(reference))


def test_an_unsound_clip_is_made_again_and_those_beside_it_stay(out: Path, folder: Path, tmp_path: Path) -> None:
    record = json.loads((out / "run.json").read_text())
    manifest = next(m for m in read_manifests(out).values() if m.num_clips > 2)
    before = rows_of(out)
    store = open_store(out)
    clips = [TokenCache(out).token_set(p) for p in range(11)]
    clips = [c for c in clips if any(c.clip_id == clip.clip_id for unit in manifest.clips for clip in unit.clips)]
    spoilt = TokenSet(
        **{n: getattr(clips[0], n) for n in clips[0].__dataclass_fields__} | {"pooled": clips[0].pooled * 3}
    )
    (out / "commits" / f"{manifest.shard_id}.json").unlink()
    write_shard(store, manifest.shard_id, [spoilt, *clips[1:]], [], record, ("parquet",))
    assert [f.remedy for f in verify(out).findings] == ["thin"]
    moved = Path(shutil.move(folder, tmp_path / "archived"))
    try:
        left = repair(out, INLINE, RecordingListener()).after
        # What cannot be made again is recorded; no other clip goes with it.
        assert (left.clips, left.failed_ranges, left.problems) == (10, 1, ())
    finally:
        shutil.move(moved, folder)
    run(sorted(folder.iterdir()), out, tiny_recipe(Path(record["settings"]["encoder"])), retry_failed=True)
    assert rows_of(out) == before


def test_shards_whose_records_are_lost_need_no_videos(out: Path, folder: Path, reference: Path, tmp_path: Path) -> None:
    for record in sorted((out / "commits").iterdir()):
        record.write_bytes(b"{")
    spoilt = sorted((out / "shards").iterdir())[0]
    spoilt.write_bytes(spoilt.read_bytes()[:-5])
    moved = Path(shutil.move(folder, tmp_path / "archived"))
    try:
        done = repair(out, INLINE, RecordingListener())
    finally:
        shutil.move(moved, folder)
    assert done.after.problems == ()
    kept, want = rows_of(out), rows_of(reference)
    assert 0 < len(want) - len(kept) <= 4
    assert kept.items() <= want.items()
    assert done.after.clips == len(kept)


def test_nothing_is_removed_where_it_cannot_be_made_again(out: Path, tmp_path: Path) -> None:
    shard = sorted((out / "shards").iterdir())[0]
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    record = json.loads((out / "run.json").read_text())
    record["settings"]["encoder"] = str(tmp_path / "gone")
    (out / "run.json").write_text(json.dumps(record))
    with pytest.raises(SettingsError):
        repair(out, INLINE, RecordingListener())
    assert shard.exists()


@pytest.mark.parametrize("is_gathered", [False, True])
def test_a_shard_made_again_keeps_what_is_committed(
    tmp_path: Path, is_gathered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two drivers planned different clips into a shard of one name, or a video was archived meanwhile."""
    monkeypatch.setattr(commits, "GATHER_FROM", 1)
    write_shard(tmp_path, "a" * 16, [made_clip(i) for i in range(3)], [], RUN, ("webdataset",))
    if is_gathered:
        gather(open_store(tmp_path))
    write_shard(tmp_path, "a" * 16, [made_clip(2), made_clip(7)], [], RUN, ("parquet",))
    (manifest,) = read_manifests(tmp_path).values()
    assert sorted(clip.index for unit in manifest.clips for clip in unit.clips) == [0, 1, 2, 7]
    assert [file.name.rpartition(".")[2] for file in manifest.files] == ["parquet", "tar"]
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    assert [clip.clip_index for clip in TokenCache(tmp_path)] == [0, 1, 2, 7]


def test_a_run_that_was_killed_before_its_inputs_were_stored_is_not_complete(out: Path) -> None:
    for folder in ("plan", "commits", "shards", "index"):
        shutil.rmtree(out / folder)
    assert verify(out).problems == ("no input was ever recorded: run the same `vtm extract` again",)


def test_a_folder_that_was_removed_is_not_made_again_half(out: Path) -> None:
    store = open_store(out)
    shutil.rmtree(out)
    with pytest.raises(FileNotFoundError, match="not there any more"):
        store.put("videos.parquet", b"")
    with pytest.raises(FileNotFoundError, match="not there any more"):
        write_shard(store, "a" * 16, [made_clip(0)], [], RUN, ("parquet",))
    assert not out.exists()
