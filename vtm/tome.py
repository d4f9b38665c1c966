"""Token merging inside an image encoder (ToMe: Bolya et al. 2023, arXiv:2210.09461): rounds of bipartite matching.

A block of the encoder merges between its attention and its MLP: `bipartite_plan` decides by the keys of that attention,
the plan's `weighted_mean` merges the tokens by their sizes and its `sum` the sizes; the attention of the blocks after
that adds `vtm.size_attention.size_bias` to its logits.

Letters: B batch, N tokens of a picture, D key channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vtm.budget import ROUNDING
from vtm.errors import MergeError
from vtm.finite import check_finite
from vtm.matching import nearest_targets
from vtm.merge import grow_groups
from vtm.plan import MergePlan


def bipartite_plan(keys_BND: Tensor, num_remove: int, *, protected: int = 0) -> MergePlan:
    """One round of bipartite soft matching (section 3).

    The tokens are dealt to two sets by turns; each of the first finds its most similar in the second; the `num_remove`
    most similar pairs merge.

    Args:
        keys_BND: (B, N, D), any float dtype; no gradient is taken.
        num_remove: tokens to remove, at most half of those that are not protected.
        protected: the first tokens (cls, registers), which neither merge nor are merged with.

    Returns:
        A plan of N - num_remove groups; the protected tokens are its first groups.

    Raises:
        MergeError: `num_remove` is negative or more than half of the tokens can give; or, on a CPU, some keys are not
            finite.
    """
    check_finite("keys", keys_BND)
    batch, total, _ = keys_BND.shape
    most = (total - protected) // 2
    if not 0 <= num_remove <= most:
        raise MergeError(f"a round removes from 0 to {most} of {total - protected} tokens, got {num_remove}")
    index_N = torch.arange(total, device=keys_BND.device)
    source_BS = index_N[protected::2].expand(batch, -1)
    facing_BM = index_N[protected + 1 :: 2].expand(batch, -1)
    if num_remove == 0:
        return MergePlan(index_N.expand(batch, -1), total, index_N.expand(batch, -1))
    nearest_BS, cosine_BS = nearest_targets(keys_BND, source_BS, facing_BM)
    target_BM = torch.cat((index_N[:protected].expand(batch, -1), facing_BM), dim=1)
    return grow_groups(target_BM, source_BS, nearest_BS + protected, cosine_BS, num_remove)


def removal_schedule(num_tokens: int, keep: float, num_blocks: int) -> tuple[int, ...]:
    """How many tokens each block removes so that a share of them is left after the last.

    Args:
        num_tokens: patch tokens before the first block, without cls and registers.
        keep: share left after the last block, above 0 and at most 1: ceil(keep · num_tokens) tokens.
        num_blocks: blocks that merge.

    Returns:
        One count a block, the same in each. Where a block would have to remove more than half of its tokens, which one
        round cannot, the blocks before or after it remove more.

    Raises:
        MergeError: even halving in every block leaves too many.
    """
    if not 0 < keep <= 1:
        raise MergeError(f"keep is the share of tokens left, above 0 and at most 1, got {keep}")
    left = max(1, math.ceil(num_tokens * keep - ROUNDING))
    if left << num_blocks < num_tokens:
        raise MergeError(
            f"{num_blocks} blocks that halve {num_tokens} tokens leave {-(-num_tokens >> num_blocks)}, "
            f"more than the {left} of keep {keep}: keep more, or merge in more blocks"
        )
    removed, now = [], num_tokens
    for block in range(1, num_blocks + 1):
        wanted = num_tokens - round((num_tokens - left) * block / num_blocks)
        after = max(min(wanted, left << (num_blocks - block)), -(-now // 2))
        removed.append(now - after)
        now = after
    return tuple(removed)
