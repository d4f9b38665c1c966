"""What a run is asked to do: the recipe, which decides the bytes, and the execution, which does not."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pipeline.errors import SettingsError
from pipeline.values import FrameChoice, Resizer

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TokenDtype = Literal["float16", "bfloat16", "float32", "int8"]
ComputeDtype = Literal["auto", "float32", "bfloat16", "float16"]
ShardFormat = Literal["parquet", "webdataset"]
EngineName = Literal["ray", "inline"]
DeviceName = Literal["auto", "cuda", "cpu"]
TokenWeights = Literal["uniform", "saliency", "motion"]
EmbeddingChoice = Literal["auto", "always", "never"]
STRATEGIES = ("none", "naive", "center", "boundary", "motion", "saliency", "coverage", "learnable", "tree")
DEFAULT_KEEP = 0.1
AMOUNTS = ("keep", "tokens_per_clip", "partition_factor", "fidelity")
"""Settings of which at most one says how far clips merge."""

T = TypeVar("T")


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise SettingsError(message)


def _choice(name: str, value: str, known: tuple[str, ...]) -> None:
    _require(value in known, f"--{name} {value} is unknown: choose one of {', '.join(known)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides what is written for a clip, and so what the fingerprint covers."""

    encoder: str = "google/siglip2-base-patch16-224"
    """A Hugging Face id, or a folder with config.json, model.safetensors and preprocessor_config.json."""
    revision: str | None = None
    """Branch, tag or commit of a Hugging Face id."""
    layer: int = -1
    """Output block: -1 the last, -2 the last but one, 9 the ninth."""
    encoder_keep: float = 1.0
    """Share of a frame's patches left by merging inside the encoder; 1 merges none."""
    reuse_levels: float | None = None
    """A patch is not encoded again while the mean difference of its uint8 values to those last encoded is at most this;
    a frame that changed by more than a third is encoded whole, and every frame is where nothing is said."""
    strategy: str = "tree"
    """How the merge picks its targets; `tree` stores with them what leaves any smaller number at reading."""
    keep: float | None = None
    """Share of a clip's tokens left by the merge; 0.1 where nothing is said."""
    tokens_per_clip: int | None = None
    """Tokens left per clip, instead of a share."""
    fidelity: float | None = None
    """Mean cosine that every clip is to have with its tokens, instead of a share; for `tree`."""
    weights: TokenWeights = "uniform"
    """What a patch counts for `tree`: `uniform`, or half of it by the encoder's `saliency` or by `motion`."""
    max_gap_frames: int | None = None
    """`tree` merges only groups between which at most so many frames lie: 0 keeps moments together."""
    partition_factor: int | None = None
    """The paper's γ, instead of a share: every γ-th token is a target."""
    merge_share: float = 1.0
    """The paper's R as a share of the sources: only the most similar are merged."""
    vtm: str | None = None
    """Folder of a trained scorer or network, for `learnable`."""
    fps: Fraction = Fraction(1)
    """Grid instants a second of video."""
    clip_frames: int = 60
    """Grid instants a clip."""
    frames: FrameChoice = "exact"
    """`exact`: the frame on display at each instant. `key`: the nearest key frame, at a fraction of the cost."""
    tonemap: bool = False
    """Whether HLG and PQ video is brought to the standard dynamic range; else its coded values are taken."""
    deinterlace: bool = False
    """Whether one field of interlaced pictures is taken; else both stay woven."""
    alpha_background: str | None = None
    """Colour (RRGGBB) under transparent pictures; transparency is left out where nothing is said."""
    resize: Resizer = "torch"
    """Whose antialiased resize: `torch`, fast, within a level of Pillow; `pillow`, bit for bit."""
    embedding: EmbeddingChoice = "auto"
    """When the column `embedding` is filled: `auto` where the output block is the last, whose tokens it is made of;
    `always` after an earlier one too, by running the blocks after it; `never`."""
    dtype: TokenDtype = "float16"
    """Of the tokens written."""
    compute_dtype: ComputeDtype = "auto"
    """Of the encoder's arithmetic; `auto` follows the device."""
    batch_frames: int | None = None
    """Frames the encoder takes at once: 20 on a CPU, a clip of at most 60 on a GPU, where nothing is said. A GPU's
    kernels round differently for other shapes, so it is part of the recipe."""
    compile: bool = False
    """Whether a GPU runs the encoder's blocks through torch's compiler. It rounds differently, so it is part of it."""

    def __post_init__(self) -> None:
        _choice("strategy", self.strategy, STRATEGIES)
        _choice("resize", self.resize, get_args(Resizer))
        _choice("frames", self.frames, get_args(FrameChoice))
        colour = self.alpha_background
        _require(
            colour is None or (len(colour) == 6 and all(c in "0123456789abcdefABCDEF" for c in colour)),
            f"--alpha-background {colour} is no colour: give six hex digits, for example ffffff for white",
        )
        _choice("dtype", self.dtype, get_args(TokenDtype))
        _choice("compute-dtype", self.compute_dtype, get_args(ComputeDtype))
        _require(self.fps > 0, f"--fps {self.fps} must be above 0, for example 1 or 30000/1001")
        _require(self.clip_frames > 0, f"--clip-frames {self.clip_frames} must be 1 or more")
        _require(
            self.batch_frames is None or self.batch_frames > 0, f"--batch-frames {self.batch_frames} must be 1 or more"
        )
        _require(self.layer != 0, "--layer 0 names no block: count from 1, or from -1 backwards")
        for name in ("keep", "encoder_keep", "merge_share"):
            share = getattr(self, name)
            option = name.replace("_", "-")
            _require(
                share is None or 0 < share <= 1,
                f"--{option} {share} must be above 0 and at most 1: it is a share of the tokens, 0.1 keeps a tenth",
            )
        tokens, factor = self.tokens_per_clip, self.partition_factor
        _require(tokens is None or tokens > 0, f"--tokens-per-clip {tokens} must be 1 or more")
        _require(factor is None or factor > 1, f"--partition-factor {factor} must be 2 or more")
        given = [n for n in AMOUNTS if getattr(self, n) is not None]
        names = " and ".join("--" + n.replace("_", "-") for n in given)
        _require(len(given) <= 1, f"{names} exclude each other: give one of them")
        _require(
            self.strategy != "none" or not given, f"--strategy none keeps every token: leave out {names}, or merge"
        )
        _require(
            self.fidelity is None or (self.strategy == "tree" and 0 < self.fidelity < 1),
            f"--fidelity {self.fidelity} must be above 0 and below 1, and wants --strategy tree, which alone knows it",
        )
        _choice("embedding", self.embedding, get_args(EmbeddingChoice))
        _choice("weights", self.weights, get_args(TokenWeights))
        _require(
            self.weights == "uniform" or self.strategy == "tree",
            f"--weights {self.weights} says what --strategy tree keeps up: leave it out of --strategy {self.strategy}",
        )
        _require(
            self.weights != "motion" or self.encoder_keep == 1,
            f"--weights motion is of the patch grid, which --encoder-keep {self.encoder_keep} dissolves: "
            "leave one of them out",
        )
        gap = self.max_gap_frames
        _require(gap is None or gap >= 0, f"--max-gap-frames {gap} must be 0 or more")
        _require(
            gap is None or self.strategy == "tree",
            f"--max-gap-frames bounds what --strategy tree merges: leave it out of --strategy {self.strategy}",
        )
        _require(
            self.strategy != "tree" or (factor is None and self.merge_share == 1),
            "--strategy tree takes --keep, --tokens-per-clip or --fidelity: --partition-factor and --merge-share "
            "are the paper's, for --strategy naive and the others",
        )
        _require(
            (self.strategy == "learnable") == (self.vtm is not None),
            "--strategy learnable and --vtm DIR (a folder made by `vtm train`) go together",
        )

        _require(
            self.encoder_keep == 1 or self.strategy not in ("center", "boundary", "motion", "learnable"),
            f"--strategy {self.strategy} places its targets on the patch grid, "
            f"which --encoder-keep {self.encoder_keep} dissolves: leave one of them out",
        )
        levels = self.reuse_levels
        _require(
            levels is None or 0 <= levels <= 255,
            f"--reuse-levels {levels} must be 0 to 255: it is a mean difference of uint8 values, 2 spares still scenes",
        )
        _require(
            levels is None or self.encoder_keep == 1,
            f"--reuse-levels {levels} lets single patches stand for later ones, "
            f"which --encoder-keep {self.encoder_keep} dissolves: leave one of them out",
        )

        _require(
            levels is None or self.embedding != "always",
            f"--reuse-levels {levels} encodes single patches, of which no image embedding can be made: leave out "
            "--embedding always",
        )
        _require(
            not self.compile or (levels is None and self.encoder_keep == 1),
            "--compile compiles whole blocks, which --encoder-keep and --reuse-levels take apart: leave one out",
        )

    @property
    def reads_motion(self) -> bool:
        """Whether the merge needs each patch's motion."""
        return "motion" in (self.strategy, self.weights)

    @property
    def reads_saliency(self) -> bool:
        """Whether the merge needs the encoder's own attention."""
        return "saliency" in (self.strategy, self.weights)

    @property
    def says_how_far(self) -> bool:
        """Whether a share, a count or a factor was given."""
        return any(getattr(self, name) is not None for name in AMOUNTS)

    @property
    def share_kept(self) -> float | None:
        """The share to keep, where no count, factor or fidelity says otherwise."""
        if self.strategy == "none":
            return 1.0
        if self.keep is None and self.says_how_far:
            return None
        return DEFAULT_KEEP if self.keep is None else self.keep


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How the work is carried out; nothing here changes a clip's bytes."""

    format: tuple[ShardFormat, ...] = ("parquet",)
    """Shard formats to write."""
    engine: EngineName = "ray"
    """`ray`: actors on this machine or a cluster. `inline`: this process alone."""
    address: str | None = None
    """A Ray cluster to join; without it RAY_ADDRESS, else Ray starts locally."""
    workers: int | None = None
    """Decode workers; as many as cores where nothing is said."""
    device: DeviceName = "auto"
    """What encoders compute on: `auto` is `cuda` where the nodes have GPUs, else `cpu`."""
    gpus: int | None = None
    """GPUs to encode on; all there are where nothing is said, 0 to encode on the cores. With `device` cpu they are
    reserved and not used: a rehearsal."""
    gpu_share: float = 1.0
    """Share of a GPU that an encoder takes: 0.5 puts two encoders on each."""
    wait_for_nodes_s: float = 0.0
    """How long to wait for GPUs that an autoscaler may add to the cluster."""
    unit_clips: int = 2
    """Clips a worker decodes in one pass."""
    shard_clips: int = 32
    """Most clips in a shard (a unit is never split)."""
    unit_timeout_s: float = 300.0
    """A decode worker that makes no progress for so long is stopped."""
    encode_timeout_s: float = 600.0
    """An encode worker that makes no progress for so long is stopped."""
    decode_memory_mb: int = 4096
    """Most memory that a decode worker may allocate beyond what it starts with."""
    retry_failed: bool = False
    """Try again what earlier runs recorded as failed."""

    def __post_init__(self) -> None:
        _choice("engine", self.engine, get_args(EngineName))
        _choice("device", self.device, get_args(DeviceName))
        _require(0 < self.gpu_share <= 1, f"--gpu-share {self.gpu_share} must be above 0 and at most 1")
        _require(
            self.device != "cuda" or self.gpus != 0, "--device cuda and --gpus 0 exclude each other: leave one out"
        )
        _require(bool(self.format), "--format needs parquet, webdataset or both")
        for name in self.format:
            _choice("format", name, get_args(ShardFormat))
        for count_name, least in (("workers", 1), ("gpus", 0), ("unit_clips", 1), ("shard_clips", 1)):
            count = getattr(self, count_name)
            option = count_name.replace("_", "-")
            _require(count is None or count >= least, f"--{option} {count} must be {least} or more")
        _require(self.wait_for_nodes_s >= 0, f"--wait-for-nodes-s {self.wait_for_nodes_s} must be 0 or more")
        _require(self.unit_timeout_s > 0, f"--unit-timeout-s {self.unit_timeout_s} must be above 0")
        _require(self.encode_timeout_s > 0, f"--encode-timeout-s {self.encode_timeout_s} must be above 0")
        _require(self.decode_memory_mb >= 256, f"--decode-memory-mb {self.decode_memory_mb} must be 256 or more")


def load_toml(path: Path) -> dict[str, Any]:
    """The settings of a TOML recipe, names as on the command line with `_` or `-`.

    Raises:
        SettingsError: the file cannot be read, or holds a name that is no setting.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"--config {path} cannot be read as TOML: {error}") from error
    settings = {name.replace("-", "_"): value for name, value in data.items()}
    known = sorted({f.name for cls in (Recipe, Execution) for f in fields(cls)} | {"inputs", "out"})
    for name, value in settings.items():
        _require(name in known, f"--config {path}: {name} is no setting: choose from {', '.join(known)}")
        _require_kind(f"--config {path}", name, value)
    return settings


LISTS = ("inputs", "format")
LOOSE = ("out", "fps")


def _require_kind(where: str, name: str, value: object) -> None:
    """Refuse a value of another kind than the setting's, with its name.

    Raises:
        SettingsError: it is text where a number is wanted, or the like.
    """
    if name in LISTS:
        fits = isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))
        wanted = "text or a list of texts"
    elif name in LOOSE:
        fits, wanted = isinstance(value, str | int | float) and not isinstance(value, bool), "text or a number"
    else:
        wanted, kinds = _kind_of(name)
        fits = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
    _require(fits, f"{where}: {name.replace('_', '-')} = {value!r} has the wrong kind of value: write {wanted}")


def _kind_of(name: str) -> tuple[str, tuple[type, ...]]:
    """What a setting is written as, and what it is read as."""
    annotation = next(str(f.type) for cls in (Recipe, Execution) for f in fields(cls) if f.name == name)
    for text, wanted, kinds in (
        ("int", "a whole number, without quotes", (int,)),
        ("float", "a number, without quotes", (int, float)),
        ("bool", "true or false", (bool,)),
    ):
        if annotation.split(" |")[0] == text:
            return wanted, kinds
    return "text, in quotes", (str,)


def build(cls: type[T], values: dict[str, Any]) -> T:
    """A settings class from a mapping that may hold other names as well; text becomes fractions and tuples."""
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    chosen = {k: v for k, v in values.items() if k in known and v is not None}
    if "fps" in chosen:
        chosen["fps"] = parse_fps(chosen["fps"])
    if "format" in chosen:
        parts = chosen["format"]
        chosen["format"] = tuple(parts.split(",")) if isinstance(parts, str) else tuple(parts)
    return cls(**chosen)


def parse_fps(text: object) -> Fraction:
    """`1`, `0.5` or `30000/1001` as an exact fraction.

    Raises:
        SettingsError: it is none of these.
    """
    try:
        return Fraction(str(text))
    except (ValueError, ZeroDivisionError) as error:
        raise SettingsError(f"--fps {text} is no rate: give a number such as 1, 0.5 or 30000/1001") from error
