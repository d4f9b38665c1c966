"""What is sampled for a clip follows from its id alone."""

from __future__ import annotations

import hashlib

import pytest
import torch

from pipeline.encode.clip_encoder import clip_seed
from vtm import merge_plan

FIRST, SECOND = "ab" * 16 + "-000001", "ab" * 16 + "-000002"


def test_a_seed_is_the_first_63_bits_of_the_ids_hash() -> None:
    for clip_id in (FIRST, SECOND):
        assert clip_seed(clip_id) == int(hashlib.sha256(clip_id.encode()).hexdigest()[:16], 16) // 2


@pytest.mark.parametrize("strategy", ["motion", "saliency", "learnable", "coverage"])
def test_the_same_id_is_the_same_plan_and_another_id_another(strategy: str) -> None:
    keys_BND = torch.randn(1, 105, 8, generator=torch.Generator().manual_seed(0))
    cue_BN = torch.randn(1, 105, generator=torch.Generator().manual_seed(1))
    settings = {"strategy": strategy, "grid": (3, 5, 7), "keep": 0.2, "motion": cue_BN, "saliency": cue_BN}
    first, again, other = (
        merge_plan(keys_BND, seed=clip_seed(clip_id), **settings).group for clip_id in (FIRST, FIRST, SECOND)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
