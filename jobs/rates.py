"""How fast a machine decodes and encodes: read from a benchmark's JSON, or measured on one clip."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import SettingsError
from pipeline.settings import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What one encoder and one core can do with a recipe."""

    device: str
    """`cuda` or `cpu`."""
    encode_frames_per_s: float
    """Frames that one encoder encodes and merges per second."""
    decode_core_s_per_video_s: float
    """Seconds of one core that decoding a second of video takes."""
    cores: int
    """Cores of the machine that was measured."""
    source: str
    """Where these figures come from, for people."""

    def __post_init__(self) -> None:
        for name in ("encode_frames_per_s", "decode_core_s_per_video_s"):
            if not getattr(self, name) > 0:
                raise SettingsError(f"{name} = {getattr(self, name)!r} must be above 0")


def load_rates(path: Path) -> Rates:
    """The rates in what `vtm bench pipeline --json` printed.

    Raises:
        SettingsError: the file holds none.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["rates"]
        return Rates(**found | {"source": str(path)})
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"--rates {path} holds no rates ({type(error).__name__}: {error}): make it with "
            "`vtm bench pipeline VIDEO --json > rates.json`"
        ) from error


def measure_rates(uri: str, recipe: Recipe) -> Rates:
    """Decode and encode the first clip of a video on this machine.

    Raises:
        DecodeError: the video cannot be decoded.
    """
    import torch

    from pipeline.encode.clip_encoder import ClipEncoder
    from pipeline.encode.describe import describe_encoder
    from pipeline.encode.devices import this_device
    from pipeline.inputs.sources import identify
    from pipeline.plan.clips import plan_clips
    from pipeline.video import open_video, scan_video, timing_of

    device = "cuda" if torch.cuda.is_available() else "cpu"
    description, picture = describe_encoder(recipe, this_device(device))
    encoder = ClipEncoder(recipe, description, description.device)
    info = scan_video(identify(uri))
    specs = plan_clips(info, fps=recipe.fps, clip_frames=recipe.clip_frames, count=1, frames=recipe.frames)
    began_cpu_s = time.process_time()
    with open_video(timing_of(info), picture.decoder) as source:
        clip = next(iter(source.decode(specs, picture, motion=recipe.reads_motion)))
    decode_s = time.process_time() - began_cpu_s
    if device == "cuda":
        # The first pass loads kernels.
        encoder.encode(clip, uri)
    began_s = time.perf_counter()
    encoder.encode(clip, uri)
    encode_s = time.perf_counter() - began_s
    return Rates(
        device=device,
        encode_frames_per_s=len(clip.frames) / encode_s,
        decode_core_s_per_video_s=decode_s / ((specs[0].end_ns - specs[0].start_ns) / 1e9),
        cores=torch.get_num_threads(),
        source="one clip of the first video, measured here",
    )
