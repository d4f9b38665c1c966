"""Decoded planes to upright RGB at the encoder's size with torch, on a GPU or a CPU: the pictures of `--decoder nvdec`.

The steps are those of `picture.py`: full-size RGB of 8 bits, turned upright, resized with antialiasing, cropped. Here
they are float32 arithmetic on one device, so a picture stays where NVDEC leaves it until it has the encoder's size.

Legend: H, W rows and columns of a picture; h, w those of its chroma planes.
"""

from __future__ import annotations

import av
import numpy as np
import torch
import torch.nn.functional as F
from av import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, VideoReformatter
from numpy.typing import NDArray

from pipeline.errors import DecodeError
from pipeline.values import DecoderName, PictureSpec
from pipeline.video.picture import upright_size
from pipeline.video.resize import centre_crop, resized_shape
from pipeline.video_info import ColourMatrix, PicturePolicy

# ITU-T H.273, table 4: K_R and K_B of the matrix coefficients.
LUMA_WEIGHTS: dict[ColourMatrix, tuple[float, float]] = {
    "bt709": (0.2126, 0.0722),
    "fcc": (0.30, 0.11),
    "bt601": (0.299, 0.114),
    "smpte240m": (0.212, 0.087),
    "bt2020": (0.2627, 0.0593),
}


def can_show(policy: PicturePolicy, spec: PictureSpec) -> bool:
    """Whether the pictures of a video can be made here; else `PictureMaker` makes all of them."""
    return (
        policy.matrix in LUMA_WEIGHTS
        and not (policy.transfer != "sdr" and spec.tonemap)
        and not spec.deinterlace
        and not (policy.alpha and spec.alpha_background is not None)
    )


def device_of(decoder: DecoderName) -> torch.device | None:
    """Where torch makes the pictures; None where swscale does. A reader of a run may have no GPU.

    Raises:
        DecodeError: PyAV cannot hand planes to torch (`unsupported`).
    """
    if decoder == "libav":
        return None
    if not hasattr(VideoFrame, "sw_format"):
        raise DecodeError("unsupported", f"pictures of --decoder nvdec need PyAV 18, and this is {av.__version__}")
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


class TorchPictureMaker:
    """Makes decoded frames of one video into pictures at the encoder's size.

    Args:
        policy: what was decided for the video; `can_show` holds for it.
        spec: what the encoder wants.
        reformatter: keeps swscale's tables from frame to frame.
        device: where the arithmetic is done. Frames that a CPU decoded are copied there.
    """

    def __init__(
        self, policy: PicturePolicy, spec: PictureSpec, reformatter: VideoReformatter, device: torch.device
    ) -> None:
        self.spec = spec
        self._policy, self._reformatter, self._device = policy, reformatter, device

    def make(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """(crop_height_px, crop_width_px, 3) RGB."""
        luma_HW, chroma_hw2 = (plane.to(self._device) for plane in planes_of(frame, self._policy, self._reformatter))
        small_HW3 = small_picture(luma_HW, chroma_hw2, self._policy, self.spec)
        return centre_crop(small_HW3.cpu().numpy(), self.spec.crop_height_px, self.spec.crop_width_px)


def small_picture(
    luma_HW: torch.Tensor, chroma_hw2: torch.Tensor, policy: PicturePolicy, spec: PictureSpec
) -> torch.Tensor:
    """The upright picture at the size before the crop, where its planes are; nothing waits for a GPU.

    Args:
        luma_HW: (H, W) uint8 or uint16.
        chroma_hw2: (h, w, 2) Cb and Cr, of the same dtype.
        policy: what was decided for the video.
        spec: what the encoder wants.

    Returns:
        (resized height, resized width, 3) uint8 RGB.
    """
    rgb_3HW = to_rgb(luma_HW, chroma_hw2, policy)
    if policy.mirrored:
        rgb_3HW = rgb_3HW.flip(2)
    rgb_3HW = rgb_3HW.rot90(-policy.rotation_deg // 90, (1, 2))
    height_px, width_px = resized_shape(upright_size(luma_HW.shape[0], luma_HW.shape[1], policy), spec)
    # Rows, rounding, columns, rounding: in one step, what lies beyond 0 and 255 would come out otherwise.
    for size in ((rgb_3HW.shape[1], width_px), (height_px, width_px)):
        y_1CHW = F.interpolate(rgb_3HW[None], size=size, mode=spec.interpolation, antialias=True)
        rgb_3HW = y_1CHW[0].round().clamp(0, 255)
    return rgb_3HW.to(torch.uint8).permute(1, 2, 0).contiguous()


def planes_of(
    frame: VideoFrame, policy: PicturePolicy, reformatter: VideoReformatter
) -> tuple[torch.Tensor, torch.Tensor]:
    """(H, W) luma and (h, w, 2) chroma where they are: uint8, or uint16 of which the upper bits count.

    A picture that NVDEC decoded is in this layout already (NV12, P010); one of a CPU is brought into it, no value
    changed but for rare formats with more bits or chroma, which swscale reduces.
    """
    if frame.sw_format is None:
        code = ColorRange.JPEG if policy.full_range else ColorRange.MPEG
        deep = max(component.bits for component in frame.format.components) > 8
        frame = reformatter.reformat(
            frame, format="p010le" if deep else "nv12", src_color_range=code, dst_color_range=code, threads=1
        )
    luma_HW, chroma_hw2 = (_tensor(plane) for plane in frame.planes)
    return luma_HW, chroma_hw2


def _tensor(plane: VideoPlane) -> torch.Tensor:
    # The capsule itself: torch would ask for its own stream, which PyAV does not take. Both use the default stream.
    tensor: torch.Tensor = torch.utils.dlpack.from_dlpack(plane.__dlpack__())
    return tensor


def to_rgb(luma_HW: torch.Tensor, chroma_hw2: torch.Tensor, policy: PicturePolicy) -> torch.Tensor:
    """Full-size RGB of 8 bits (ITU-T H.273, equations 4 to 39); chroma is repeated, as swscale does.

    Args:
        luma_HW: (H, W) uint8 or uint16.
        chroma_hw2: (h, w, 2) Cb and Cr, of the same dtype.
        policy: its matrix and range.

    Returns:
        (3, H, W) float32 of whole numbers from 0 to 255.
    """
    height, width = luma_HW.shape
    rows = _nearest(height, chroma_hw2.shape[0], luma_HW.device)
    columns = _nearest(width, chroma_hw2.shape[1], luma_HW.device)
    # In units of 8 bits, also where there are more.
    unit = 1 / 256 if luma_HW.dtype == torch.uint16 else 1.0
    luma_HW = luma_HW.to(torch.float32) * unit
    blue_HW, red_HW = (chroma_hw2.to(torch.float32) * unit - 128)[rows][:, columns].unbind(2)
    if not policy.full_range:
        luma_HW = (luma_HW - 16) * (255 / 219)
        blue_HW, red_HW = blue_HW * (255 / 224), red_HW * (255 / 224)
    k_red, k_blue = LUMA_WEIGHTS[policy.matrix]
    r_HW = luma_HW + 2 * (1 - k_red) * red_HW
    b_HW = luma_HW + 2 * (1 - k_blue) * blue_HW
    g_HW = (luma_HW - k_red * r_HW - k_blue * b_HW) / (1 - k_red - k_blue)
    return torch.stack([r_HW, g_HW, b_HW]).round().clamp(0, 255)


def _nearest(shown: int, coded: int, device: torch.device) -> torch.Tensor:
    """The chroma row (or column) of each luma row; of an odd number the last one may be missing."""
    return (torch.arange(shown, device=device) // 2).clamp(max=coded - 1)
