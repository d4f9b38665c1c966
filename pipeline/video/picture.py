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

from pipeline.errors import DecodeError
from pipeline.values import PictureSpec
from pipeline.video.colour import over_background, tonemap, ycgco_to_rgb
from pipeline.video.resize import resize_picture
from pipeline.video_info import ColourMatrix, PicturePolicy, Transfer

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
REFUSED_MATRICES = {
    11: "SMPTE ST 2085",
    12: "chromaticity-derived",
    13: "chromaticity-derived constant luminance",
    14: "ICtCp",
    15: "IPT-C2 (Dolby Vision)",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}
TRANSFER_OF_CODE: dict[int, Transfer] = {16: "pq", 18: "hlg"}
# Numbers of libswscale (SWS_CS_*), because PyAV before 18 has no name for the last.
SWSCALE_MATRIX: dict[ColourMatrix, int] = {"bt709": 1, "fcc": 4, "bt601": 5, "smpte240m": 7, "bt2020": 9}
FULL_RANGE_CODE = 2
UNSPECIFIED = 2
DOLBY_VISION_TAGS = frozenset({"dvh1", "dvhe", "dav1"})
"""Sample entries of streams that are Dolby Vision and nothing else; those that can be shown without it have others."""
WIDEST_PIXEL = Fraction(8)
"""Pixels wider than this, or taller, come of a damaged header."""


def decide_picture(frame: VideoFrame, stream: VideoStream) -> PicturePolicy:
    """Read the policy for a video off its first frame; what the stream leaves open is settled by its height.

    Raises:
        DecodeError: the colours are of a kind that cannot be shown (`unsupported`).
    """
    if frame.colorspace in REFUSED_MATRICES:
        name = REFUSED_MATRICES[frame.colorspace]
        raise DecodeError("unsupported", f"the colours are coded by the {name} matrix: convert the video to BT.709")
    if stream.codec_context.codec_tag in DOLBY_VISION_TAGS and frame.colorspace in (UNSPECIFIED, 15):
        raise DecodeError(
            "unsupported", "Dolby Vision of profile 5, whose colours no standard decoder knows: convert it"
        )
    rotation_deg, mirrored = orientation(frame)
    unspecified: ColourMatrix = "bt709" if frame.height >= HD_HEIGHT_PX else "bt601"
    is_rgb = frame.format.name.startswith(("rgb", "bgr", "gbr", "pal8", "argb", "abgr"))
    aspect = Fraction(stream.sample_aspect_ratio or 1) or Fraction(1)
    return PicturePolicy(
        rotation_deg=rotation_deg,
        mirrored=mirrored,
        pixel_aspect=min(max(aspect, 1 / WIDEST_PIXEL), WIDEST_PIXEL),
        matrix="rgb" if is_rgb else MATRIX_OF_CODE.get(frame.colorspace, unspecified),
        full_range=is_rgb or frame.color_range == FULL_RANGE_CODE or frame.format.name.startswith("yuvj"),
        transfer=TRANSFER_OF_CODE.get(frame.color_trc, "sdr"),
        interlaced=frame.interlaced_frame,
        alpha=has_alpha(frame) or stream.metadata.get("alpha_mode") == "1",
    )


def aspect_warning(stream: VideoStream) -> tuple[str, ...]:
    """A word where the header's pixels are too wide or too tall to be meant."""
    aspect = Fraction(stream.sample_aspect_ratio or 1) or Fraction(1)
    if 1 / WIDEST_PIXEL <= aspect <= WIDEST_PIXEL:
        return ()
    limit = WIDEST_PIXEL if aspect > 1 else 1 / WIDEST_PIXEL
    return (f"the header says pixels of {aspect.numerator}:{aspect.denominator}: taken as {limit}",)


def has_alpha(frame: VideoFrame) -> bool:
    """Whether the pixels have a share of transparency."""
    name = frame.format.name
    return name.startswith(("yuva", "gbrap", "rgba", "bgra", "argb", "abgr", "ya8", "ya16", "pal8"))


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
        words.append(policy.transfer)
    if policy.interlaced:
        words.append("interlaced")
    if policy.alpha:
        words.append("alpha")
    if policy.pixel_aspect != 1:
        words.append(f"pixel aspect {policy.pixel_aspect}")
    if policy.mirrored:
        words.append("mirrored")
    if policy.rotation_deg:
        words.append(f"turned {policy.rotation_deg}")
    return ", ".join(words)


def shown_size(frame: VideoFrame, policy: PicturePolicy) -> tuple[int, int]:
    """(height, width) in square pixels of the upright picture."""
    return upright_size(frame.height, frame.width, policy)


def upright_size(height: int, width: int, policy: PicturePolicy) -> tuple[int, int]:
    """(height, width) in square pixels of an upright picture of this coded size: a stretched one keeps its height."""
    width = max(round(width * policy.pixel_aspect), 1)
    return (width, height) if policy.rotation_deg in (90, 270) else (height, width)


class PictureMaker:
    """Makes decoded frames of one video into pictures at the encoder's size.

    Args:
        policy: what was decided for the video.
        spec: what the encoder wants, and what the user chose to do with fields, high dynamic range and transparency.
        reformatter: keeps swscale's tables from frame to frame.
    """

    def __init__(self, policy: PicturePolicy, spec: PictureSpec, reformatter: VideoReformatter) -> None:
        self.spec = spec
        self._policy, self._reformatter = policy, reformatter

    def make(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """(crop_height_px, crop_width_px, 3) RGB."""
        if frame.format.name == "cuda" and frame.sw_format is not None:
            # A field is taken from planes in the computer's memory.
            frame = frame.reformat(format=frame.sw_format.name)
        shown_hw = shown_size(frame, self._policy)
        rgb_HW3 = self._rgb(first_field(frame) if self.spec.deinterlace and frame.interlaced_frame else frame)
        return resize_picture(turned(rgb_HW3, self._policy), shown_hw, self.spec)

    def _rgb(self, frame: VideoFrame) -> NDArray[np.uint8]:
        background = self.spec.alpha_background
        if self._policy.transfer != "sdr" and self.spec.tonemap:
            coded_HW3 = converted(frame, self._policy, self._reformatter, "rgb48le")
            return tonemap(coded_HW3, self._policy.transfer, wide=self._policy.matrix == "bt2020")
        if background is not None and has_alpha(frame):
            return over_background(converted(frame, self._policy, self._reformatter, "rgba"), background)
        return cast("NDArray[np.uint8]", converted(frame, self._policy, self._reformatter, "rgb24"))


def converted(
    frame: VideoFrame, policy: PicturePolicy, reformatter: VideoReformatter, pixels: str
) -> NDArray[np.generic]:
    """The whole picture in one of swscale's RGB formats, its pixels as wide as they were coded."""
    if policy.matrix == "ycgco":
        planes = reformatter.reformat(frame, format="yuv444p", threads=1).to_ndarray()
        return cast("NDArray[np.generic]", ycgco_to_rgb(planes, policy.full_range))
    frame = reformatter.reformat(
        frame,
        format=pixels,
        src_colorspace=SWSCALE_MATRIX.get(policy.matrix),
        src_color_range=ColorRange.JPEG if policy.full_range else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        threads=1,
    )
    rgb: NDArray[np.generic] = frame.to_ndarray()
    return rgb


def turned(rgb_HW3: NDArray[np.uint8], policy: PicturePolicy) -> NDArray[np.uint8]:
    """Flipped, then turned, to upright."""
    if policy.mirrored:
        rgb_HW3 = rgb_HW3[:, ::-1]
    return np.ascontiguousarray(np.rot90(rgb_HW3, -policy.rotation_deg // 90), dtype=np.uint8)


def to_upright_rgb(frame: VideoFrame, policy: PicturePolicy, reformatter: VideoReformatter) -> NDArray[np.uint8]:
    """The whole picture as (H, W, 3) RGB, upright, as coded: no policy of choice is applied."""
    return turned(cast("NDArray[np.uint8]", converted(frame, policy, reformatter, "rgb24")), policy)


def first_field(frame: VideoFrame) -> VideoFrame:
    """Every other line, from the top: one moment's field. It is half as high, which the resize evens out."""
    field = VideoFrame(frame.width, frame.height // 2, frame.format.name)
    for source, target in zip(frame.planes, field.planes, strict=True):
        lines = np.frombuffer(memoryview(source), dtype=np.uint8).reshape(-1, source.line_size)[::2]
        kept = np.zeros((target.buffer_size // target.line_size, target.line_size), dtype=np.uint8)
        rows, columns = min(len(kept), len(lines)), min(target.line_size, source.line_size)
        kept[:rows, :columns] = lines[:rows, :columns]
        target.update(kept.tobytes())
    field.pts = frame.pts
    return field
