"""The encoder's blocks by torch's compiler, where a GPU gains from it.

One block is compiled, for one shape; the others are the same code with other weights. Compiled blocks round differently
from others. Letters: B frames, h x w pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from vtm.encoders.encoder import Encoder
from vtm.errors import EncoderError


def compile_blocks(encoder: Encoder, batch_frames: int, backend: str | Callable[..., Any] = "inductor") -> None:
    """Compile the blocks before the output block, now, for batches of so many frames of the encoder's size.

    Args:
        encoder: one that merges nothing inside, on a GPU, or of float32 or float64.
        batch_frames: B. A batch of another shape costs a compilation of its own.
        backend: of `torch.compile`.

    Raises:
        EncoderError: the encoder merges inside, its weights are laid out for a CPU, or the compiler fails: blocks that
            are not compiled would round differently from those of other processes.
    """
    if encoder.encoder_keep != 1:
        raise EncoderError(f"encoder_keep {encoder.encoder_keep} takes blocks apart, which are compiled whole")
    if encoder.vit.patch.weight.is_mkldnn:
        raise EncoderError("these weights are laid out for a CPU's own kernels; compiling is for GPUs")
    if backend == "inductor":
        _choose_kernels_without_timing()
    blocks = encoder.vit.block_list()
    for block in blocks:
        block.compile(dynamic=False, backend=backend)
    image = encoder.image
    pixels_B3hw = torch.zeros(
        *(batch_frames, 3, image.crop_height_px, image.crop_width_px), dtype=encoder.dtype, device=encoder.device
    )
    try:
        with torch.inference_mode():
            encoder.vit(pixels_B3hw)
    except (RuntimeError, OSError) as error:
        # A compiler that is missing shows as an error of torch's, or as one of the program it could not start.
        for block in blocks:
            block._compiled_call_impl = None
        cause = getattr(error, "inner_exception", error)
        reason = str(cause).strip().splitlines() or [""]
        raise EncoderError(
            f"the encoder cannot be compiled: {type(cause).__name__}: {reason[0]}: leave out --compile"
        ) from error


def _choose_kernels_without_timing() -> None:
    """Ask Inductor for the same kernels in every process; versions of torch before the setting time none by default."""
    from torch._inductor import config

    if hasattr(config, "deterministic"):
        config.deterministic = True
