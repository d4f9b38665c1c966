"""Decoded pictures to upright RGB: where rotation, aspect, colour and interlacing are decided and applied.

Legend: H, W rows and columns of a picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import cast

import numpy as np
from av import VideoFrame
from av.sidedata.sidedata import SideData, Type
from av.video.reformatter import ColorRange, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipeline.values import ColourMatrix, PicturePolicy, Transfer

HD_HEIGHT_PX = 720
# ITU-T H.273, table 4, as libavutil numbers the matrix coefficients.
MATRIX_OF_CODE: dict[int, ColourMatrix] = {
    0: "rgb",
    1: "bt709",
    4: "fcc",
    5: "bt601",
    6: "bt601",
    7: "smpte240m",
    8: "ycgco",
    9: "bt2020",
    10: "bt2020",
}
TRANSFER_OF_CODE: dict[int, Transfer] = {16: "pq", 18: "hlg"}
# Numbers of libswscale (SWS_CS_*), because PyAV before 18 has no name for the last.
SWSCALE_MATRIX: dict[ColourMatrix, int] = {"bt709": 1, "fcc": 4, "bt601": 5, "smpte240m": 7, "bt2020": 9}
FULL_RANGE_CODE = 2


def decide_picture(frame: VideoFrame, stream: VideoStream) -> PicturePolicy:
    """Read the policy for a video off its first frame; what the stream leaves open is settled by its height."""
    rotation_deg, mirrored = orientation(frame)
    unspecified: ColourMatrix = "bt709" if frame.height >= HD_HEIGHT_PX else "bt601"
    is_rgb = frame.format.name.startswith(("rgb", "bgr", "gbr", "pal8"))
    return PicturePolicy(
        rotation_deg=rotation_deg,
        mirrored=mirrored,
        pixel_aspect=Fraction(stream.sample_aspect_ratio or 1) or Fraction(1),
        matrix="rgb" if is_rgb else MATRIX_OF_CODE.get(frame.colorspace, unspecified),
        full_range=is_rgb or frame.color_range == FULL_RANGE_CODE or frame.format.name.startswith("yuvj"),
        transfer=TRANSFER_OF_CODE.get(frame.color_trc, "sdr"),
        interlaced=frame.interlaced_frame,
    )


def orientation(frame: VideoFrame) -> tuple[int, bool]:
    """Clockwise turn in degrees, and whether the picture is flipped left to right before it.

    The display matrix (ISO/IEC 14496-12, 8.2.2) maps (x, y) to (a x + c y, b x + d y), y pointing down.
    """
    try:
        # The stub of av 18 calls this mapping a TypedDict.
        side_data = cast("Mapping[Type, SideData]", frame.side_data)[Type.DISPLAYMATRIX]
    except KeyError:
        return 0, False
    matrix = np.frombuffer(bytes(side_data), dtype=np.int32)
    a, b, c, d = (int(matrix[i]) for i in (0, 1, 3, 4))
    mirrored = a * d - b * c < 0
    if mirrored:
        a, b = -a, -b
    return round(math.degrees(math.atan2(b, a)) / 90) % 4 * 90, mirrored


def describe_picture(policy: PicturePolicy, pixel_format: str) -> str:
    """The policy in a few words, for the record."""
    words = [pixel_format, policy.matrix, "full range" if policy.full_range else "limited range"]
    if policy.transfer != "sdr":
        words.append(f"{policy.transfer} as coded")
    if policy.interlaced:
        words.append("fields woven")
    if policy.pixel_aspect != 1:
        words.append(f"pixel aspect {policy.pixel_aspect}")
    if policy.mirrored:
        words.append("mirrored")
    if policy.rotation_deg:
        words.append(f"turned {policy.rotation_deg}")
    return ", ".join(words)


def shown_size(frame: VideoFrame, policy: PicturePolicy) -> tuple[int, int]:
    """(height, width) in square pixels of the upright picture: a stretched picture keeps its height."""
    height, width = frame.height, round(frame.width * policy.pixel_aspect)
    return (width, height) if policy.rotation_deg in (90, 270) else (height, width)


def to_upright_rgb(frame: VideoFrame, policy: PicturePolicy, reformatter: VideoReformatter) -> NDArray[np.uint8]:
    """The whole picture as (H, W, 3) RGB, upright, its pixels as wide as they were coded."""
    converted = reformatter.reformat(
        frame,
        format="rgb24",
        src_colorspace=SWSCALE_MATRIX.get(policy.matrix),
        src_color_range=ColorRange.JPEG if policy.full_range else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        threads=1,
    )
    rgb_HW3 = converted.to_ndarray()
    if policy.mirrored:
        rgb_HW3 = rgb_HW3[:, ::-1]
    return np.ascontiguousarray(np.rot90(rgb_HW3, -policy.rotation_deg // 90), dtype=np.uint8)
