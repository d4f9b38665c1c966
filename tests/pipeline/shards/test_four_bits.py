"""Tokens of four bits: what they lose is bounded, and every reader gets the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import TokenCache
from pipeline.cache.video_tokens import merge_video
from pipeline.shards.four_bits import dequantized, packed, quantized, unpacked
from pipeline.shards.scan import read_shard
from pipeline.shards.video_table import read_video, write_video
from pipeline.verify import verify
from tests.pipeline.runs import run, some_videos, tiny_recipe


@pytest.mark.parametrize("dim", [1, 2, 7, 32, 33, 64, 384, 391])
def test_what_is_lost_is_half_a_step(dim: int) -> None:
    values = torch.randn(13, dim, generator=torch.Generator().manual_seed(dim)) * torch.logspace(-3, 3, 13)[:, None]
    values[3] = 5.0
    values[4] = 0.0
    numbers, scale = quantized(values)
    assert (numbers.shape, numbers.dtype, scale.shape) == ((13, dim), torch.uint8, (13, -(-dim // 32), 2))
    assert int(numbers.max()) <= 15
    back = dequantized(numbers.numpy(), scale.numpy())
    step = np.repeat(scale[..., 0].float().numpy(), 32, axis=1)[:, :dim]
    lowest = np.repeat(np.abs(scale[..., 1].float().numpy()), 32, axis=1)[:, :dim]
    # The ends of a range are float16, so they are off by a 2048th of what they are.
    assert (np.abs(back - values.numpy()) <= 0.5 * step + (15 * step + lowest) * 2**-10 + 1e-7).all()
    np.testing.assert_array_equal(unpacked(packed(numbers.numpy()), dim), numbers.numpy())
    assert packed(numbers.numpy()).shape == (13, -(-dim // 2))


def test_too_few_bytes_are_an_error() -> None:
    with pytest.raises(ValueError, match="3 bytes a token hold no 7 numbers"):
        unpacked(np.zeros((2, 3), np.uint8), 7)


def test_a_run(tiny_encoder: Path, tmp_path: Path) -> None:
    videos = some_videos(tmp_path)[1:2]
    forms = ("parquet", "webdataset")
    for dtype in ("float32", "int4"):
        recipe = tiny_recipe(tiny_encoder, strategy="tree", keep=0.5, dtype=dtype)
        run(videos, tmp_path / dtype, recipe, format=forms)
    assert verify(tmp_path / "int4").problems == ()
    exact, cache = TokenCache(tmp_path / "float32"), TokenCache(tmp_path / "int4")
    for clip, whole in zip(cache.read(range(len(cache)), ("tokens",)), exact, strict=True):
        assert torch.equal(clip.tokens, cache[clip.clip_id].tokens)
        assert torch.nn.functional.cosine_similarity(clip.tokens, whole.tokens, dim=1).min() > 0.98
    assert next(iter(TokenCache(tmp_path / "int4", tokens=5))).tokens.shape == (5, 24)
    (parquet,) = (tmp_path / "int4" / "shards").glob("*.parquet")
    for one, other in zip(
        read_shard(tmp_path / "int4", f"shards/{parquet.name}"),
        read_shard(tmp_path / "int4", f"webdataset/{parquet.stem}.tar"),
        strict=True,
    ):
        np.testing.assert_array_equal(one.tokens, other.tokens)
        np.testing.assert_array_equal(one.tokens_scale, other.tokens_scale)  # type: ignore[arg-type]
    merged = merge_video(lambda: map(cache.token_set, range(len(cache))), 9)
    write_video(tmp_path / "int4", merged, {})
    stored = read_video(tmp_path / "int4", merged.video_id)
    np.testing.assert_array_equal(stored.tokens, merged.tokens)
    assert cache.video(merged.video_id).tokens.shape == (9, 24)
