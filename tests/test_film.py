"""Real films through a real encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.bench.search_frames import find_frames
from pipeline import TokenCache
from pipeline.settings import Recipe
from pipeline.verify import verify
from tests.pipeline.runs import run

pytestmark = [pytest.mark.film]


def recipe(vit: Path, **changes: Any) -> Recipe:
    settings: dict[str, Any] = {"encoder": str(vit), "layer": 9, "strategy": "naive", "keep": 0.1}
    return Recipe(**settings | changes)


@pytest.fixture(scope="module")
def whole_film(film: Path, vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("film") / "out"
    assert run([film], out, recipe(vit)).exit_code == 0
    return out


def test_ten_clips_and_597_instants(whole_film: Path) -> None:
    """596.458 s at 24 fps: the last frame is shown at 596.417 s, so instants 0 to 596 are on the grid."""
    cache = TokenCache(whole_film)
    assert len(cache) == 10
    assert sum(len(clip.frame_time_ns) for clip in cache) == 597
    for clip in cache:
        frames = 57 if clip.clip_index == 9 else 60
        assert clip.grid_thw == (frames, 16, 16)
        assert int(clip.sizes.sum()) == frames * 16 * 16
        assert len(clip.tokens) == -(-frames * 256 // 10)
        # 24 frames a second: at every whole second a frame begins.
        assert (clip.frame_time_ns % 1_000_000_000 == 0).all()
    assert verify(whole_film).is_sound


def test_a_merged_token_is_the_mean_of_its_patches(whole_film: Path, film: Path, vit: Path, tmp_path: Path) -> None:
    """Equation 4 from the tokens of the first minute, unmerged."""
    import av

    with av.open(str(film)) as source, av.open(str(tmp_path / "minute.mp4"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None and packet.dts * packet.time_base < 66:
                packet.stream = stream
                target.mux(packet)
    run([tmp_path / "minute.mp4"], tmp_path / "none", recipe(vit, strategy="none", keep=None, dtype="float32"))
    sources = TokenCache(tmp_path / "none", arrays="numpy")[0].tokens.astype(np.float64)
    clip = TokenCache(whole_film, arrays="numpy")[0]
    sums = np.zeros((len(clip.tokens), sources.shape[1]))
    np.add.at(sums, clip.group, sources)
    np.testing.assert_allclose(clip.tokens, sums / clip.sizes[:, None], rtol=2**-10, atol=2**-10)


def test_frames_cut_from_the_film_find_their_clip_and_second(whole_film: Path) -> None:
    found = find_frames(str(whole_film), num_frames=7, seed=2)
    assert (found["right_clip"], found["right_second"]) == (7, 7)


def test_real_videos_of_several_kinds_in_one_call(shared_data: Path, vit: Path, tmp_path: Path) -> None:
    names = ["intel_sample_videos/bottle-detection", "intel_sample_videos/car-detection"]
    names += [
        "intel_sample_videos/one-by-one-person-detection",
        "torchvision_gallery/sintel",
        "video2dataset/test_video",
    ]
    inputs = [path for name in names for path in (shared_data / "videos").glob(f"{name}*.mp4")]
    summary = run(inputs, tmp_path / "out", recipe(vit))
    assert (summary.exit_code, summary.videos) == (0, len(inputs))
    assert verify(tmp_path / "out").is_sound
