"""What is committed is never lost and never double; no input vanishes without a word."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from pipeline import TokenCache
from pipeline.engine.decode_worker import DecodeWorker
from pipeline.errors import StoreError
from pipeline.failed_range import FailedRange
from pipeline.inputs.named import Named
from pipeline.inputs.sources import find_named, stamped
from pipeline.repair import repair
from pipeline.settings import Execution
from pipeline.shards import commits
from pipeline.shards.commits import gather, read_manifests
from pipeline.shards.manifest import write_shard
from pipeline.status import status
from pipeline.store import open_store
from pipeline.store.publish import TEMPORARY_PREFIX
from pipeline.verify import verify
from tests.pipeline.clips_made import RUN, made_clip
from tests.pipeline.runs import RecordingListener, rows_of, run, some_videos, tiny_recipe

INLINE = Execution(engine="inline", gpus=0, workers=2, unit_clips=2, shard_clips=4)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return some_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="module")
def reference(videos: list[Path], tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reference") / "out"
    assert run(videos, out, tiny_recipe(tiny_encoder), format=("parquet", "webdataset")).exit_code == 0
    return out


@pytest.fixture
def out(reference: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(reference, tmp_path / "out"))


def test_a_shard_is_not_replaced_by_less(tmp_path: Path) -> None:
    whole = write_shard(tmp_path, "a" * 16, [made_clip(i) for i in range(6)], [], RUN, ("parquet",))
    assert write_shard(tmp_path, "a" * 16, [made_clip(i) for i in range(4)], [], RUN, ("parquet",)) == whole
    assert read_manifests(tmp_path)["a" * 16].num_clips == 6


def test_a_format_added_later_needs_neither_videos_nor_encoder(
    videos: list[Path], tiny_encoder: Path, reference: Path, tmp_path: Path
) -> None:
    films = [Path(shutil.copy(path, tmp_path / path.name)) for path in videos]
    recipe = tiny_recipe(tiny_encoder)
    run(films, tmp_path / "out", recipe)
    for path in films:
        path.write_bytes(b"gone")
        os.utime(path, (1, 1))
    summary = run([videos[0], films[0]], tmp_path / "out", recipe, format=("webdataset",))
    assert summary.tally.clips == 0
    assert len(rows_of(tmp_path / "out")) == 11
    # The Parquet files stay committed.
    names = {file.name.partition("/")[0] for m in read_manifests(tmp_path / "out").values() for file in m.files}
    assert names == {"shards", "webdataset"}
    assert not [text for text in verify(tmp_path / "out").problems if "committed" in text or "twice" in text]


def test_one_format_alone_can_be_read(out: Path) -> None:
    both = [clip.tokens.numpy().tobytes() for clip in TokenCache(out)]
    for path in (out / "commits").iterdir():
        record = json.loads(path.read_text())
        record["files"] = [file for file in record["files"] if file["name"].startswith("webdataset/")]
        path.write_text(json.dumps(record))
    shutil.rmtree(out / "shards")
    cache = TokenCache(out)
    assert [clip.tokens.numpy().tobytes() for clip in cache] == both
    assert len(list(cache.facts())) == len(cache) == 11


def test_the_cache_is_in_order_of_video_and_clip(out: Path) -> None:
    cache = TokenCache(out)
    assert cache.clip_ids == sorted(cache.clip_ids)
    assert [clip.clip_id for clip in cache] == cache.clip_ids
    assert cache.clip_ids[4] in cache
    assert cache[4] in cache
    assert "nothing" not in cache
    assert f"{cache[0].video_id}-999999" not in cache
    assert f"{cache[0].video_id}-0" not in cache


def test_a_clip_that_two_shards_hold_is_there_once(tmp_path: Path) -> None:
    for shard, indices in (("a" * 16, (0, 1, 2)), ("b" * 16, (1, 2, 3, 4))):
        write_shard(tmp_path, shard, [made_clip(i) for i in indices], [], RUN, ("parquet",))
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    assert [clip.clip_index for clip in TokenCache(tmp_path)] == [0, 1, 2, 3, 4]


def test_half_written_tables_are_not_read(out: Path) -> None:
    for folder in ("plan/videos", "plan/inputs", "commits"):
        (out / folder / f"{TEMPORARY_PREFIX}1-x.parquet").write_bytes(b"half")
    assert verify(out).is_sound


def test_inputs_that_were_named_and_never_scanned_are_missed(out: Path, videos: list[Path], tmp_path: Path) -> None:
    from pipeline.plan.inputs import Listing, store_inputs

    other = Path(shutil.copy(videos[2], tmp_path / "other.mp4"))
    store_inputs(open_store(out), Listing([Named("*.mp4", stamped(str(other)))]))
    (problem,) = verify(out).problems
    assert f"{other}: named by *.mp4, and neither" in problem


def test_commits_are_gathered(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "GATHER_FROM", 2)
    before = read_manifests(out)
    gather(open_store(out))
    assert [path.suffix for path in (out / "commits").iterdir()] == [".parquet"]
    assert read_manifests(out) == before
    assert verify(out).is_sound


def test_links_shadows_and_names_that_are_not_utf8(videos: list[Path], tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "films", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    shutil.copy(videos[2], elsewhere / "linked.avi")
    (folder / "sub").symlink_to(elsewhere)
    (elsewhere / "loop").symlink_to(folder)
    (folder / "broken.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (folder / "._x.mp4").write_bytes(b"shadow")
    (Path(os.fsdecode(os.fsencode(folder) + b"/\xff.mp4"))).write_bytes(b"x")
    found = list(find_named([str(folder)]))
    assert [Path(item.input.uri).name for item in found if isinstance(item, Named)] == ["linked.avi"]
    lost = sorted(item.message for item in found if isinstance(item, FailedRange))
    assert ["a link to" in text for text in lost] == [False, True] or ["a link to" in text for text in lost] == [
        True,
        False,
    ]
    assert any("not UTF-8" in text for text in lost)


def test_lists_name_folders_globs_nulls_and_labels(videos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a.avi", "sub/b.avi", "sub/c.avi"):
        shutil.copy(videos[2], tmp_path / name)
    rows = [{"uri": "a.avi", "caption": "a dog"}, {"uri": "sub"}, {"uri": "sub/*.avi", "k": 1}, {"uri": None}]
    (tmp_path / "list.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    found = list(find_named([str(tmp_path / "list.jsonl")]))
    names = [Path(item.input.uri).name for item in found if isinstance(item, Named)]
    assert names == ["a.avi", "b.avi", "c.avi", "b.avi", "c.avi"]
    assert next(item.labels for item in found if isinstance(item, Named)) == '{"caption": "a dog"}'
    (lost,) = [item for item in found if isinstance(item, FailedRange)]
    assert "row 4: names no video" in lost.message


def test_labels_travel_and_archives_are_read_in_place(
    videos: list[Path], tiny_encoder: Path, reference: Path, tmp_path: Path
) -> None:
    import tarfile
    import zipfile

    import pyarrow.parquet as pq

    with tarfile.open(tmp_path / "films.tar", "w") as tar:
        tar.add(videos[1], "deep/one.mkv")
        tar.add(__file__, "deep/one.txt")
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as archive:
        archive.write(videos[2], "two.avi")
    (tmp_path / "list.csv").write_text("path,caption\nfilms.tar,three clips\nfilms.zip,one clip\n")
    out = tmp_path / "out"
    summary = run([tmp_path / "list.csv"], out, tiny_recipe(tiny_encoder))
    assert (summary.exit_code, summary.clips) == (0, 4), summary.failures
    want = rows_of(reference)
    assert all(want[clip_id] == row for clip_id, row in rows_of(out).items())
    table = pq.read_table(out / "videos.parquet")
    assert table.column("has_audio").to_pylist() == [False, False]
    labels = table.column("labels").to_pylist()
    assert sorted(json.loads(text)[0]["caption"] for text in labels) == ["one clip", "three clips"]
    assert verify(out).is_sound


def test_a_run_can_be_read_from_another_directory(
    videos: list[Path], tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.cache.preview import preview_clips

    shutil.copy(videos[2], tmp_path / "x.avi")
    monkeypatch.chdir(tmp_path)
    run(["x.avi"], Path("out"), tiny_recipe(tiny_encoder))
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    (preview,) = preview_clips("../out", 1, 2)
    assert preview.frames is not None


def test_a_file_that_is_replaced_after_its_scan_is_tried_again(
    videos: list[Path], tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = Path(shutil.copy(videos[1], tmp_path / "film.mkv"))
    real = DecodeWorker.scan

    def scan(self: DecodeWorker, source):  # type: ignore[no-untyped-def]
        planned = real(self, source)
        film.write_bytes(videos[2].read_bytes())
        return planned

    monkeypatch.setattr(DecodeWorker, "scan", scan)
    summary = run([film], tmp_path / "out", tiny_recipe(tiny_encoder))
    assert summary.exit_code == 3
    assert {(f.failure, "changed since it was scanned" in f.message) for f in summary.failures} == {("io", True)}
    monkeypatch.undo()
    summary = run([film], tmp_path / "out", tiny_recipe(tiny_encoder))
    assert (summary.exit_code, summary.tally.clips) == (0, 1)
    assert verify(tmp_path / "out").is_sound


def test_a_file_that_grows_while_it_is_scanned_is_not_complete(
    videos: list[Path], tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pipeline.video as decoding

    film = Path(shutil.copy(videos[1], tmp_path / "film.mkv"))
    real = decoding.scan_video

    def scan(source):  # type: ignore[no-untyped-def]
        info = real(source)
        with film.open("ab") as stream:
            stream.write(b"more")
        return info

    monkeypatch.setattr(decoding, "scan_video", scan)
    summary = run([film], tmp_path / "out", tiny_recipe(tiny_encoder))
    assert [(f.failure, f.message) for f in summary.failures] == [
        ("io", "it changes while it is read: extract it again when it is whole")
    ]


def test_repair_makes_again_what_is_wrong_and_only_that(out: Path, reference: Path) -> None:
    (out / "webdataset").rename(out / "gone")
    shards = sorted((out / "shards").iterdir())
    before = {path: path.stat().st_mtime_ns for path in shards}
    spoilt, missing = shards[:2]
    data = bytearray(spoilt.read_bytes())
    data[len(data) // 2] ^= 1
    spoilt.write_bytes(data)
    missing.unlink()
    (out / "commits" / f"{shards[2].stem}.json").write_text("{")
    (out / "shards" / f"{'e' * 16}.parquet").write_bytes(b"stray")
    (out / "index").rename(out / "index-gone")
    done = repair(out, INLINE, RecordingListener())
    assert len(done.before.problems) >= 4
    assert done.after.problems == ()
    assert rows_of(out) == rows_of(reference)
    untouched = [path for path in shards[3:] if path.stat().st_mtime_ns == before[path]]
    assert untouched == shards[3:]
    for path in (reference / "shards").iterdir():
        assert (out / "shards" / path.name).read_bytes() == path.read_bytes()
    assert repair(out, INLINE, RecordingListener()).summary is None


def test_repair_takes_tokens_from_the_other_format(out: Path, reference: Path) -> None:
    spoilt = sorted((out / "shards").iterdir())[0]
    spoilt.write_bytes(b"x" * spoilt.stat().st_size)
    done = repair(out, INLINE, RecordingListener())
    assert done.after.is_sound
    assert done.summary is not None
    assert done.summary.tally.clips == 0
    assert spoilt.read_bytes() == (reference / "shards" / spoilt.name).read_bytes()


def test_repair_thins_what_is_there_twice(out: Path) -> None:
    store = open_store(out)
    run_json = json.loads((out / "run.json").read_text())
    clips = [TokenCache(out).token_set(0)]
    write_shard(store, "f" * 16, clips, [], run_json, ("parquet",))
    assert any("2 times" in text for text in verify(out).problems)
    done = repair(out, INLINE, RecordingListener())
    assert done.after.problems == ()
    assert done.after.clips == 11


def test_deep_verification_makes_clips_again(out: Path) -> None:
    from pipeline.deep import compare_again
    from pipeline.shards.manifest import file_name

    assert list(compare_again(out, 3)) == []
    manifest = next(iter(read_manifests(out).values()))
    record = json.loads((out / "run.json").read_text())
    (out / "commits" / f"{manifest.shard_id}.json").unlink()
    clips = [TokenCache(out).token_set(0)]
    assert file_name(manifest.shard_id, "parquet") not in {
        f.name for m in read_manifests(out).values() for f in m.files
    }
    other = type(clips[0])(**{n: getattr(clips[0], n) for n in clips[0].__dataclass_fields__} | {"fidelity": 0.25})
    shard = next(
        m for m in read_manifests(out).values() if any(c.clip_id == other.clip_id for u in m.clips for c in u.clips)
    )
    (out / "commits" / f"{shard.shard_id}.json").unlink()
    write_shard(out, shard.shard_id, [other], [], record, ("parquet",))
    assert any("made again it has other fidelity" in f.text for f in compare_again(out, 20))


def test_status_from_the_store_alone(out: Path) -> None:
    found = status(out)
    assert (found.inputs, found.inputs_scanned, found.videos, found.clips, found.clips_done) == (3, 3, 3, 11, 11)
    assert (found.owner, found.is_running, found.failures) == ("", False, {})
    next((out / "commits").iterdir()).unlink()
    assert status(out).clips_done < 11


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_place_that_cannot_be_written_is_one_line(
    videos: list[Path], tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.store.disk import DiskStore

    real = DiskStore.put

    def put(self: DiskStore, name: str, data: bytes, **how: bool) -> None:
        if name.startswith("plan/"):
            raise OSError(28, "No space left on device", name)
        real(self, name, data, **how)

    monkeypatch.setattr(DiskStore, "put", put)
    with pytest.raises(StoreError, match=r"cannot be used: .*No space left"):
        run(videos[2:], tmp_path / "out", tiny_recipe(tiny_encoder))
    monkeypatch.undo()
    assert run(videos[2:], tmp_path / "out", tiny_recipe(tiny_encoder)).exit_code == 0
    assert verify(tmp_path / "out").is_sound


def test_the_commands(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from jobs.cli import main

    assert main(["status", str(out)]) == 0
    assert "3 of 3 inputs scanned; 11 of 11 clips" in capsys.readouterr().out
    sorted((out / "shards").iterdir())[0].unlink()
    assert main(["verify", str(out)]) == 1
    assert "is missing" in capsys.readouterr().err
    assert main(["repair", str(out), "--engine", "inline", "--gpus", "0"]) == 0
    assert "1 problem found, 0 left, 0 clips made" in capsys.readouterr().out
    assert main(["verify", str(out), "--deep", "2"]) == 0
    assert main(["status", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.split("\n", 1)[1])["clips_done"] == 11
