from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import InputError, RunFolderError, SettingsError
from pipeline.shards.commits import read_manifests
from pipeline.shards.scan import read_shard
from pipeline.values import TokenSet
from pipeline.verify import verify
from tests.pipeline.runs import rows_of, run, some_videos, tiny_recipe
from tests.synthetic import make_video


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return some_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="module")
def reference(videos: list[Path], tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reference") / "out"
    summary = run(videos, out, tiny_recipe(tiny_encoder))
    assert summary.exit_code == 0
    return out


def clips(out: Path) -> list[TokenSet]:
    return [clip for path in sorted((out / "shards").glob("*.parquet")) for clip in read_shard(path.parent, path.name)]


def test_everything_is_there_and_sound(reference: Path) -> None:
    verdict = verify(reference)
    assert verdict.problems == ()
    # 21 + 9 + 2 instants, three a clip.
    assert (verdict.videos, verdict.clips, verdict.failed_ranges) == (3, 7 + 3 + 1, 0)
    assert sum(clip.grid_thw[0] for clip in clips(reference)) == 21 + 9 + 2
    for clip in clips(reference):
        assert clip.grid_thw[1:] == (3, 5)
        assert clip.sizes.sum() == np.prod(clip.grid_thw)


def test_tokens_come_in_order_of_centre_time(reference: Path) -> None:
    for clip in clips(reference):
        order = np.lexsort((clip.centers[:, 2], clip.centers[:, 1], clip.centers[:, 0]))
        np.testing.assert_array_equal(order, np.arange(len(clip.tokens)))


def test_merged_tokens_are_the_mean_of_their_sources(
    reference: Path, videos: list[Path], tiny_encoder: Path, tmp_path: Path
) -> None:
    """Equation 4, from the tokens of a run that merges nothing."""
    run(videos, tmp_path / "none", tiny_recipe(tiny_encoder, strategy="none", keep=None, dtype="float32"))
    unmerged = {clip.clip_id: clip for clip in clips(tmp_path / "none")}
    assert unmerged.keys() == {clip.clip_id for clip in clips(reference)}
    for clip in clips(reference):
        sources = unmerged[clip.clip_id].tokens.astype(np.float64)
        expected = np.stack([sources[clip.group == m].mean(axis=0) for m in range(len(clip.tokens))])
        np.testing.assert_allclose(clip.tokens, expected, rtol=2**-10, atol=1e-4)
        pooled = sources.mean(axis=0)
        np.testing.assert_allclose(clip.pooled, pooled / np.linalg.norm(pooled), atol=1e-5)
        cosine = torch.cosine_similarity(torch.from_numpy(sources), torch.from_numpy(expected[clip.group]))
        assert abs(clip.fidelity - float(cosine.mean())) < 1e-5


@pytest.mark.parametrize("unit_clips", [1, 10])
def test_bytes_do_not_depend_on_the_unit_size(
    reference: Path, videos: list[Path], tiny_encoder: Path, tmp_path: Path, unit_clips: int
) -> None:
    run(videos, tmp_path / "out", tiny_recipe(tiny_encoder), unit_clips=unit_clips, shard_clips=5)
    assert rows_of(tmp_path / "out") == rows_of(reference)


def test_bytes_do_not_depend_on_the_format(
    reference: Path, videos: list[Path], tiny_encoder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(videos, out, tiny_recipe(tiny_encoder), format=("webdataset",))
    assert rows_of(out) == rows_of(reference)
    assert verify(out).is_sound
    # Asking for Parquet as well makes it from the tokens that are there.
    assert run(videos, out, tiny_recipe(tiny_encoder), format=("parquet", "webdataset")).tally.clips == 0
    assert rows_of(out) == rows_of(reference)
    assert verify(out).is_sound


def test_files_are_equal_byte_for_byte(reference: Path, videos: list[Path], tiny_encoder: Path, tmp_path: Path) -> None:
    run(videos, tmp_path / "out", tiny_recipe(tiny_encoder), workers=1)
    for path in (reference / "shards").iterdir():
        assert (tmp_path / "out" / "shards" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "int8"])
def test_other_dtypes_hold_the_same_tokens(
    reference: Path, videos: list[Path], tiny_encoder: Path, tmp_path: Path, dtype: str
) -> None:
    from pipeline import TokenCache

    run(videos[1:], tmp_path / "out", tiny_recipe(tiny_encoder, dtype=dtype))
    assert verify(tmp_path / "out").is_sound
    cache, exact = TokenCache(tmp_path / "out"), TokenCache(reference)
    tolerance = {"bfloat16": 2**-8, "float32": 2**-10, "int8": 1 / 127}[dtype]
    for clip in cache:
        want = exact[clip.clip_id].tokens.float()
        assert (clip.tokens.float() - want).abs().max() <= tolerance * want.abs().max()


def test_running_again_does_nothing(reference: Path, videos: list[Path], tiny_encoder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (reference / "shards").iterdir()}
    summary = run(videos, reference, tiny_recipe(tiny_encoder))
    assert (summary.exit_code, summary.tally.clips) == (0, 0)
    assert "nothing was left to do" in summary.lines()[-1]
    assert {path: path.stat().st_mtime_ns for path in (reference / "shards").iterdir()} == before


def test_resumes_where_shards_are_missing(
    reference: Path, videos: list[Path], tiny_encoder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(reference, out)
    first, second, *_ = sorted(read_manifests(out))
    (out / "commits" / f"{first}.json").unlink()
    (out / "shards" / f"{second}.parquet").write_bytes(b"cut")
    leftover, young = out / "shards" / ".tmp-7-half.parquet", out / "shards" / ".tmp-8-half.parquet"
    leftover.write_bytes(b"half")
    os.utime(leftover, (1, 1))
    young.write_bytes(b"somebody writes this")
    assert not verify(out).is_sound
    summary = run(videos, out, tiny_recipe(tiny_encoder))
    assert summary.tally.shards == 2
    assert not leftover.exists()
    young.unlink()
    assert rows_of(out) == rows_of(reference)
    assert verify(out).is_sound
    assert len(list((out / "shards").iterdir())) == len(list((reference / "shards").iterdir()))


def test_new_inputs_are_added(reference: Path, videos: list[Path], tiny_encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(videos[2:], out, tiny_recipe(tiny_encoder)).clips == 1
    summary = run(videos, out, tiny_recipe(tiny_encoder))
    assert (summary.clips, summary.tally.clips) == (11, 10)
    assert rows_of(out) == rows_of(reference)


def test_a_moved_or_copied_video_is_the_same_video(
    reference: Path, videos: list[Path], tiny_encoder: Path, tmp_path: Path
) -> None:
    out, moved = tmp_path / "out", tmp_path / "moved.mp4"
    shutil.copytree(reference, out)
    shutil.copy(videos[0], moved)
    summary = run([moved, videos[0]], out, tiny_recipe(tiny_encoder))
    assert (summary.videos, summary.clips, summary.tally.clips) == (3, 11, 0)


def test_a_video_that_moved_in_mid_run_goes_on_where_it_is(
    reference: Path, videos: list[Path], tiny_encoder: Path, tmp_path: Path
) -> None:
    """Its address in the plan leads nowhere: that is known only when the input at the new one was read."""
    out, before, after = tmp_path / "out", tmp_path / "before.mp4", tmp_path / "after.mp4"
    shutil.copy(videos[0], before)
    run([before, videos[1]], out, tiny_recipe(tiny_encoder))
    for manifest in (out / "commits").iterdir():
        manifest.unlink()
    before.rename(after)
    summary = run([after, videos[1]], out, tiny_recipe(tiny_encoder))
    assert (summary.exit_code, summary.videos, summary.tally.clips) == (0, 2, 10)
    assert verify(out).is_sound
    # By now the new address is known; nothing has to be read again.
    assert run([after, videos[1]], out, tiny_recipe(tiny_encoder)).tally.clips == 0


def test_what_an_earlier_run_owes_is_made_whichever_inputs_are_named(
    videos: list[Path], tiny_encoder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(videos[:2], out, tiny_recipe(tiny_encoder))
    for manifest in (out / "commits").iterdir():
        manifest.unlink()
    summary = run(videos[2:], out, tiny_recipe(tiny_encoder))
    assert (summary.exit_code, summary.tally.clips) == (0, 11)
    assert verify(out).is_sound


def test_what_an_earlier_run_owes_and_cannot_be_made_is_among_the_failures(
    videos: list[Path], tiny_encoder: Path, tmp_path: Path
) -> None:
    """A planned video that is gone and is not among the inputs any more."""
    films = [Path(shutil.copy(path, tmp_path / path.name)) for path in videos]
    out = tmp_path / "out"
    run(films, out, tiny_recipe(tiny_encoder))
    for path in (*(out / "commits").iterdir(), *(out / "shards").iterdir()):
        path.unlink()
    films[1].unlink()
    summary = run([films[0]], out, tiny_recipe(tiny_encoder))
    assert {(Path(failed.uri).name, failed.failure) for failed in summary.failures} == {("short.mkv", "io")}
    assert (summary.exit_code, summary.clips) == (3, 8)
    # It is recorded now, and no concern of a later run with other inputs.
    assert run([films[0]], out, tiny_recipe(tiny_encoder)).exit_code == 0


def test_retrying_never_takes_what_is_committed(videos: list[Path], tiny_encoder: Path, tmp_path: Path) -> None:
    """A shard holds clips of two videos: one with a clip that failed, the other archived since."""
    out, whole = tmp_path / "out", tmp_path / "whole.avi"
    make_video(whole, frames=101, fps=25, codec="mpeg4", gop=10)
    broken = bytearray(whole.read_bytes())
    begin, end = int(len(broken) * 0.45), int(len(broken) * 0.75)
    broken[begin:end] = bytes(end - begin)
    (tmp_path / "broken.avi").write_bytes(broken)
    archived = tmp_path / "archived.mkv"
    shutil.copy(videos[1], archived)
    first = run([tmp_path / "broken.avi", archived], out, tiny_recipe(tiny_encoder), shard_clips=100)
    before = rows_of(out)
    assert len(before) == first.clips
    archived.unlink()
    again = run([tmp_path / "broken.avi"], out, tiny_recipe(tiny_encoder), retry_failed=True)
    assert again.clips >= first.clips
    assert rows_of(out).items() >= before.items()
    assert verify(out).problems == ()


def test_another_fingerprint_is_refused(reference: Path, videos: list[Path], tiny_encoder: Path) -> None:
    with pytest.raises(RunFolderError, match=r"fps 2 there, 1 now.*layer -1 there, 1 now"):
        run(videos, reference, tiny_recipe(tiny_encoder, fps=1, layer=1))
    assert verify(reference).is_sound


def test_a_moved_encoder_is_the_same_encoder(
    reference: Path, videos: list[Path], tiny_encoder: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(tiny_encoder, tmp_path / "elsewhere")
    assert run(videos, reference, tiny_recipe(moved)).tally.clips == 0


def test_a_folder_of_something_else_is_left_alone(videos: list[Path], tiny_encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="no run"):
        run(videos, tmp_path, tiny_recipe(tiny_encoder))
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]


def test_bad_inputs_beside_good_ones(videos: list[Path], tiny_encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video at all, this")
    (tmp_path / "empty.mp4").write_bytes(b"")
    inputs = [tmp_path / "text.mp4", videos[1], tmp_path / "empty.mp4", tmp_path / "missing.mp4"]
    out = tmp_path / "out"
    summary = run(inputs, out, tiny_recipe(tiny_encoder))
    assert (summary.exit_code, summary.clips) == (3, 3)
    assert [f.failure for f in summary.failures] == ["io", "corrupt", "corrupt"]
    verdict = verify(out)
    assert (verdict.problems, verdict.failed_ranges) == ((), 3)
    # Remembered, not tried again; unless asked to, and then the one that has come since is read.
    assert run(inputs, out, tiny_recipe(tiny_encoder)).exit_code == 3
    shutil.copy(videos[2], tmp_path / "missing.mp4")
    summary = run(inputs, out, tiny_recipe(tiny_encoder), retry_failed=True)
    assert (len(summary.failures), summary.clips) == (2, 4)


def test_nothing_to_extract_is_an_error_and_writes_nothing(tiny_encoder: Path, tmp_path: Path) -> None:
    for name in ("nothing.mp4", "*.mp4", "."):
        with pytest.raises(InputError):
            run([tmp_path / name], tmp_path / "out", tiny_recipe(tiny_encoder))
    assert not (tmp_path / "out").exists()


def test_an_encoder_that_lacks_a_file(videos: list[Path], tiny_encoder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(SettingsError, match=r"preprocessor_config\.json"):
        run(videos, tmp_path / "out", tiny_recipe(folder))
    assert not (tmp_path / "out").exists()


def test_cut_off_film_is_extracted_as_far_as_it_goes(tiny_encoder: Path, tmp_path: Path) -> None:
    whole = make_video(tmp_path / "whole.avi", frames=201, fps=25, codec="mpeg4", gop=10).read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    summary = run([tmp_path / "cut.avi"], tmp_path / "out", tiny_recipe(tiny_encoder))
    assert summary.exit_code == 3
    assert [failed.failure for failed in summary.failures] == ["truncated"]
    assert summary.clips >= 2
    assert verify(tmp_path / "out").is_sound


@pytest.mark.parametrize("damage", ["token", "row", "stray", "plan"])
def test_verify_finds_damage(reference: Path, tmp_path: Path, damage: str) -> None:
    out = tmp_path / "out"
    shutil.copytree(reference, out)
    shard = sorted((out / "shards").iterdir())[0]
    if damage == "token":
        data = bytearray(shard.read_bytes())
        data[len(data) // 3] ^= 1
        shard.write_bytes(data)
    elif damage == "row":
        (out / "commits" / f"{shard.stem}.json").unlink()
        shard.unlink()
    elif damage == "stray":
        shutil.copy(shard, out / "shards" / "another.parquet")
    else:
        manifest = json.loads((out / "commits" / f"{shard.stem}.json").read_text())
        manifest["fingerprint"] = "0" * 16
        (out / "commits" / f"{shard.stem}.json").write_text(json.dumps(manifest))
    expected = {"token": "sha256 differs", "row": "nothing from", "stray": "never committed", "plan": "fingerprint"}
    problems = verify(out).problems
    assert any(expected[damage] in problem for problem in problems)
