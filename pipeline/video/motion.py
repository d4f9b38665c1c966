"""How much each patch of a picture moves: codec vectors with the camera's motion removed, else differences of pictures.

Legend: T frames of a clip, H x W its patch grid, R x C cells of 8 x 8 coded pixels, K vectors of one frame.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from av import VideoFrame
from av.sidedata.motionvectors import MotionVectors
from av.sidedata.sidedata import Type
from av.video.frame import PictureType
from numpy.typing import NDArray

from pipeline.values import MotionSource, PictureSpec
from pipeline.video.picture import shown_size
from pipeline.video.resize import resized_shape
from pipeline.video_info import VideoTiming

CELL_PX = 8
FIT_VECTORS = 400
"""Vectors that the camera's motion is fitted to; more cost time and change nothing."""
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


class VectorWatch:
    """Sees every frame of a stream go by, in display order, and tells the clip's meter."""

    def __init__(self, timing: VideoTiming) -> None:
        self._time_base = timing.time_base
        self._anchor_pts: int | None = None
        """Tick of the last frame shown that others refer to."""
        self.meter: MotionMeter | None = None

    def see(self, frame: VideoFrame) -> None:
        """Take the next frame."""
        if frame.pts is None:
            return
        if self._anchor_pts is not None and self._anchor_pts < frame.pts and self.meter is not None:
            self.meter.measure(frame, frame.pts, float((frame.pts - self._anchor_pts) * self._time_base))
        if frame.pict_type != PictureType.B:
            self._anchor_pts = frame.pts


class MotionMeter:
    """Adds up the motion between the sampled frames of one clip."""

    def __init__(self, timing: VideoTiming, spec: PictureSpec, targets: Sequence[int]) -> None:
        self._timing, self._spec, self._targets = timing, spec, targets
        self._sums_THW = np.zeros((len(targets), *spec.grid_hw), dtype=np.float32)
        self._counts = np.zeros(len(targets), dtype=np.int64)

    def measure(self, frame: VideoFrame, pts: int, step_s: float) -> None:
        """Add a frame at tick `pts`, whose vectors reach back by `step_s`."""
        interval = bisect_left(self._targets, pts)
        if pts < self._targets[0] or interval == len(self._targets):
            return
        cells_RC = residual_cells(frame)
        if cells_RC is not None:
            self._sums_THW[interval] += self._to_patches(cells_RC, frame) / step_s
            self._counts[interval] += 1

    def _to_patches(self, cells_RC: NDArray[np.float32], frame: VideoFrame) -> NDArray[np.float32]:
        """Turn, crop and average coded cells to the encoder's grid; pixels become patches."""
        policy, spec = self._timing.picture, self._spec
        if policy.mirrored:
            cells_RC = cells_RC[:, ::-1]
        turned_RC = np.rot90(cells_RC, -policy.rotation_deg // 90)
        shown_hw = shown_size(frame, policy)
        resized_hw = resized_shape(shown_hw, spec)
        window = tuple(
            slice(int(max(size - crop, 0) / 2 / size * n), max(round((size + crop) / 2 / size * n), 1))
            for size, crop, n in zip(
                resized_hw, (spec.crop_height_px, spec.crop_width_px), turned_RC.shape, strict=True
            )
        )
        cells = torch.from_numpy(np.ascontiguousarray(turned_RC[window]))[None]
        patch_px = spec.patch_px * shown_hw[0] / resized_hw[0]
        patches_HW: NDArray[np.float32] = F.adaptive_avg_pool2d(cells / patch_px, spec.grid_hw)[0].numpy()
        return patches_HW

    def read(self, pictures: NDArray[np.uint8], time_ns: NDArray[np.int64]) -> tuple[NDArray[np.float32], MotionSource]:
        """The motion of each sampled frame since the one before; the first has that of the second.

        Args:
            pictures: (T, height, width, 3) sampled frames at the encoder's size.
            time_ns: (T,) their times.

        Returns:
            (T, H, W) magnitude, and its source: patches a second from codec vectors, or change of luma a second (of
            full scale) from the sampled frames where the codec has no vectors.
        """
        if not self._counts.any():
            return picture_differences(pictures, time_ns, self._spec.grid_hw), "frames"
        motion_THW = self._sums_THW / np.maximum(self._counts, 1)[:, None, None]
        if len(motion_THW) > 1:
            motion_THW[0] = motion_THW[1]
        return motion_THW.astype(np.float32), "codec"


def residual_cells(frame: VideoFrame) -> NDArray[np.float32] | None:
    """Displacement in pixels, beyond the camera's, of each 8 x 8 cell since the picture that it refers to.

    Vectors into the future are left out: those into the past cover nearly all of what moves.

    Returns:
        (R, C); None for a frame without vectors.
    """
    try:
        side_data = cast("Mapping[Type, MotionVectors]", frame.side_data)[Type.MOTION_VECTORS]
    except KeyError:
        return None
    vectors = side_data.to_ndarray()
    vectors = vectors[(vectors["source"] < 0) & (vectors["motion_scale"] > 0)]
    if not len(vectors):
        return None
    move_K2 = np.stack([vectors["motion_x"], vectors["motion_y"]], axis=1) / vectors["motion_scale"][:, None]
    place_K2 = np.stack([vectors["dst_x"], vectors["dst_y"]], axis=1).astype(np.float64)
    residual_K = np.linalg.norm(move_K2 - camera_motion(place_K2, move_K2), axis=1)
    cells_RC = np.zeros((-(-frame.height // CELL_PX), -(-frame.width // CELL_PX)), dtype=np.float32)
    for down in (0, CELL_PX):
        for right in (0, CELL_PX):
            here = (vectors["h"] > down) & (vectors["w"] > right)
            row = (vectors["dst_y"] - vectors["h"] // 2 + down)[here] // CELL_PX
            column = (vectors["dst_x"] - vectors["w"] // 2 + right)[here] // CELL_PX
            cells_RC[row.clip(0, len(cells_RC) - 1), column.clip(0, cells_RC.shape[1] - 1)] = residual_K[here]
    return cells_RC


def camera_motion(place_K2: NDArray[np.float64], move_K2: NDArray[np.float64]) -> NDArray[np.float64]:
    """The affine motion (pan, zoom, roll) that most blocks follow, at each block. Returns (K, 2) pixels.

    Least squares twice; the second time over the half that the first fits best, so that what moves by itself does not
    count.
    """
    terms_K3 = np.column_stack([place_K2, np.ones(len(place_K2))])
    some = slice(None, None, max(len(place_K2) // FIT_VECTORS, 1))
    terms, moves = terms_K3[some], move_K2[some]
    affine_32 = np.linalg.lstsq(terms, moves, rcond=None)[0]
    errors = np.linalg.norm(moves - terms @ affine_32, axis=1)
    best = errors <= np.median(errors)
    affine_32 = np.linalg.lstsq(terms[best], moves[best], rcond=None)[0]
    fitted_K2: NDArray[np.float64] = terms_K3 @ affine_32
    return fitted_K2


def picture_differences(
    pictures: NDArray[np.uint8], time_ns: NDArray[np.int64], grid_hw: tuple[int, int]
) -> NDArray[np.float32]:
    """Mean absolute change of luma per patch and second, a change of the whole picture's brightness left out.

    Returns:
        (T, H, W); zeros for a single picture.
    """
    luma = pictures.astype(np.float32) @ LUMA / 255
    motion_THW = np.zeros((len(luma), *grid_hw), dtype=np.float32)
    for i in range(1, len(luma)):
        change = luma[i] - luma[i - 1]
        change = np.abs(change - np.median(change)) / (float(time_ns[i] - time_ns[i - 1]) / 1e9)
        motion_THW[i] = F.adaptive_avg_pool2d(torch.from_numpy(change)[None], grid_hw)[0].numpy()
    if len(luma) > 1:
        motion_THW[0] = motion_THW[1]
    return motion_THW
