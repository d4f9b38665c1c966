"""Which patches of a clip are encoded, and which earlier token represents each of the others.

Run-length tokenization (Choudhury et al. 2024, arXiv:2411.05222) leaves out patches that do not change. Here the token
of the frame in which a patch was last encoded represents it, so that every frame keeps its N tokens.

Letters: T frames, h x w pixels, H x W patch grid, N = H * W patches, p side of a patch.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vtm.encoders.image import as_frames
from vtm.errors import EncoderError

WHOLE_ABOVE = 1 / 3
"""Share of a frame's patches that have changed above which all are encoded: after a cut or with a new slide, those that
look the same no longer mean the same."""


def reuse_map(
    frames: NDArray[np.uint8] | Tensor, patch_px: int, levels: float, *, whole_above: float = WHOLE_ABOVE
) -> Tensor:
    """For each patch of each frame, the frame whose token represents it.

    A patch is compared with its own pixels when it was last encoded, not with those of the frame before: slow changes
    add up until it is encoded again. The first frame is encoded whole.

    Args:
        frames: (T, h, w, 3) uint8 RGB at the encoder's size; what overhangs the patch grid is not looked at.
        patch_px: side of a patch.
        levels: a patch is encoded again when the mean absolute difference of its values is above this; 0 spares
            those alone that are the same in every value.
        whole_above: a frame is encoded whole when the share of its patches that have to be is above this.

    Returns:
        (T, N) int64 on the CPU: the frame's own number where the patch is encoded, else an earlier one.

    Raises:
        EncoderError: frames of another kind, or `levels` below 0.
    """
    if not levels >= 0:
        raise EncoderError(f"reuse levels {levels}: expected 0 or more, the mean difference of uint8 values to allow")
    frames_Thw3 = as_frames(frames).cpu().numpy()
    rows, columns = frames_Thw3.shape[1] // patch_px, frames_Thw3.shape[2] // patch_px
    most = levels * 3 * patch_px**2
    source_THW = np.zeros((len(frames_Thw3), rows, columns), dtype=np.int64)
    reference_HpWc = _cut(frames_Thw3[0], patch_px).copy()
    for number in range(1, len(frames_Thw3)):
        patches_HpWc = _cut(frames_Thw3[number], patch_px)
        changed_HW = _difference(patches_HpWc, reference_HpWc) > most
        changed_HW |= changed_HW.mean() > whole_above
        np.copyto(reference_HpWc, patches_HpWc, where=changed_HW[:, None, :, None])
        source_THW[number] = np.where(changed_HW, number, source_THW[number - 1])
    return torch.from_numpy(source_THW).flatten(1)


def _cut(frame_hw3: NDArray[np.uint8], patch_px: int) -> NDArray[np.uint8]:
    """(H, p, W, p * 3)."""
    rows, columns = frame_hw3.shape[0] // patch_px, frame_hw3.shape[1] // patch_px
    return frame_hw3[: rows * patch_px, : columns * patch_px].reshape(rows, patch_px, columns, patch_px * 3)


def _difference(one_HpWc: NDArray[np.uint8], other_HpWc: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(H, W) sums of absolute differences."""
    apart_HpWc = np.maximum(one_HpWc, other_HpWc) - np.minimum(one_HpWc, other_HpWc)
    difference_HW: NDArray[np.int64] = apart_HpWc.sum(axis=1, dtype=np.int32).sum(axis=2, dtype=np.int64)
    return difference_HW


def is_encoded(source_TN: Tensor) -> Tensor:
    """(T, N) bool: whether the patch is encoded itself."""
    return source_TN == torch.arange(len(source_TN), device=source_TN.device)[:, None]
