"""What a run is asked to do: the recipe, which decides the bytes, and the execution, which does not."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pipeline.errors import SettingsError
from pipeline.values import DecoderName, FrameChoice, Resizer

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TokenDtype = Literal["float16", "bfloat16", "float32", "int8", "int4"]
ComputeDtype = Literal["auto", "float32", "bfloat16", "float16"]
ShardFormat = Literal["parquet", "webdataset"]
EngineName = Literal["auto", "ray", "inline"]
DeviceName = Literal["auto", "cuda", "cpu"]
TokenWeights = Literal["uniform", "saliency", "motion", "learnt"]
EmbeddingChoice = Literal["auto", "always", "never"]
VisionStage = Literal["projected", "tower"]
StrategyName = Literal["none", "naive", "center", "boundary", "motion", "saliency", "coverage", "learnable", "tree"]
STRATEGIES: tuple[StrategyName, ...] = get_args(StrategyName)
DEFAULT_KEEP = 0.1
AMOUNTS = ("keep", "tokens_per_clip", "partition_factor", "fidelity")
"""Settings that say how many tokens are left; at most one of them is given."""

T = TypeVar("T")


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise SettingsError(message)


def _choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise SettingsError(f"--{name} {value} is unknown: {nearest(value, known)}choose one of {', '.join(known)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean NAME? ` where one of the known names is close, else nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]}? " if close else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides what is written for a clip, and so what the fingerprint covers."""

    encoder: str = "google/siglip2-base-patch16-224"
    """Folder with config.json, model.safetensors and preprocessor_config.json, or a Hugging Face id."""
    revision: str | None = None
    """Branch, tag or commit of a Hugging Face id."""
    layer: int = -1
    """Block whose output is taken: -1 is the last, -2 the last but one, 9 the ninth."""
    size_px: str | None = None
    """Size of the frames for a video-LLM's vision part. By default its processor's own smart resize is used."""
    stage: VisionStage = "projected"
    """Output of a video-LLM's vision part: `projected` is what its language model reads, `tower` what is projected."""
    encoder_keep: float = 1.0
    """Share of a frame's patches left by merging inside the encoder (ToMe); 1 merges none."""
    reuse_levels: float | None = None
    """Reuse a patch's last encoding while its pixels differ from it by at most this many of 255 levels on average. A
    frame in which more than a third changed is encoded whole. By default every patch of every frame is encoded."""
    strategy: StrategyName = "tree"
    """Merging strategy. `tree` stores a merge tree, which can be read at any smaller number of tokens."""
    keep: float | None = None
    """Share of a clip's tokens left after merging. The default is 0.1."""
    tokens_per_clip: int | None = None
    """Number of tokens left in each clip, instead of a share."""
    fidelity: float | None = None
    """Keep the fewest tokens with which every clip has this mean cosine similarity to its patches (`tree` only)."""
    weights: TokenWeights = "uniform"
    """Weight of each patch in a `tree`: uniform; half of it by the encoder's saliency or by motion; or learnt, by the
    scores of `scorer`."""
    max_gap_frames: int | None = None
    """Largest gap in time, in frames, between groups that `tree` merges; 0 merges only groups adjacent in time. By
    default there is no limit."""
    partition_factor: int | None = None
    """The paper's γ, instead of a share: every γ-th token is a merge target."""
    merge_share: float = 1.0
    """The paper's R, as a share of the source tokens: only the most similar ones are merged."""
    scorer: str | None = None
    """Folder of a trained scorer or network, made by `vtm train`, for the strategy `learnable`
    or the weights `learnt`."""
    fps: Fraction = Fraction(1)
    """Frames sampled per second of video, such as 1, 0.5 or 30000/1001."""
    clip_frames: int = 60
    """Frames sampled per clip."""
    frames: FrameChoice = "exact"
    """`exact`: the frame on display at each sampling time. `key`: the nearest key frame, which is far cheaper."""
    tonemap: bool = False
    """Map HLG and PQ (HDR) video to standard dynamic range. By default the coded values are used as they are."""
    deinterlace: bool = False
    """Use one field of interlaced pictures. By default both fields stay interleaved."""
    alpha_background: str | None = None
    """Background colour (RRGGBB) for transparent pictures. By default transparency is ignored."""
    resize: Resizer = "torch"
    """Antialiased resize: `torch` is fast and within one level of Pillow; `pillow` equals it bit for bit."""
    decoder: DecoderName = "libav"
    """`libav` decodes on the CPU; `nvdec` decodes, converts and resizes on NVIDIA GPUs. Colours differ by some levels,
    and so it is part of the recipe. What NVDEC cannot decode is decoded on the CPU."""
    embedding: EmbeddingChoice = "auto"
    """When to fill the column `embedding`, the image embedding: `auto` if the output block is the last, `always` also
    after an earlier block, by running the remaining ones, or `never`."""
    dtype: TokenDtype = "float16"
    """Data type of the stored tokens."""
    compute_dtype: ComputeDtype = "auto"
    """Data type of the encoder's arithmetic; `auto` depends on the device."""
    batch_frames: int | None = None
    """Frames per encoder batch. It changes rounding on a GPU, and so is part of the recipe. The default is 20 on a CPU;
    on a GPU it is 60, or a clip if that is shorter."""
    compile: bool = False
    """Run the encoder's blocks through torch.compile on a GPU. It changes rounding, and so is part of the recipe."""

    def __post_init__(self) -> None:
        _choice("strategy", self.strategy, STRATEGIES)
        _choice("stage", self.stage, get_args(VisionStage))
        _choice("resize", self.resize, get_args(Resizer))
        _choice("frames", self.frames, get_args(FrameChoice))
        _choice("decoder", self.decoder, get_args(DecoderName))
        _require(
            self.decoder == "libav" or self.resize == "torch",
            f"--resize {self.resize} resizes on the CPU, and --decoder nvdec on the GPU: leave one of them out",
        )
        _require(
            self.decoder == "libav" or not self.reads_motion,
            "--decoder nvdec gives no motion vectors: leave it out with --strategy motion or --weights motion",
        )
        colour = self.alpha_background
        _require(
            colour is None or (len(colour) == 6 and all(c in "0123456789abcdefABCDEF" for c in colour)),
            f"--alpha-background {colour} is not a colour: give six hex digits, for example ffffff for white",
        )
        _choice("dtype", self.dtype, get_args(TokenDtype))
        _choice("compute-dtype", self.compute_dtype, get_args(ComputeDtype))
        _require(self.fps > 0, f"--fps {self.fps} must be above 0, for example 1 or 30000/1001")
        _require(self.clip_frames > 0, f"--clip-frames {self.clip_frames} must be 1 or more")
        _require(
            self.batch_frames is None or self.batch_frames > 0, f"--batch-frames {self.batch_frames} must be 1 or more"
        )
        _require(self.layer != 0, "--layer 0 is not a block: the first is 1, the last is -1")
        for name in ("keep", "encoder_keep", "merge_share"):
            share = getattr(self, name)
            option = name.replace("_", "-")
            _require(
                share is None or 0 < share <= 1,
                f"--{option} {share} must be above 0 and at most 1: it is a share, 0.1 keeps a tenth",
            )
        tokens, factor = self.tokens_per_clip, self.partition_factor
        _require(tokens is None or tokens > 0, f"--tokens-per-clip {tokens} must be 1 or more")
        _require(factor is None or factor > 1, f"--partition-factor {factor} must be 2 or more")
        given = [n for n in AMOUNTS if getattr(self, n) is not None]
        names = " and ".join("--" + n.replace("_", "-") for n in given)
        _require(len(given) <= 1, f"{names} cannot be used together: give one of them")
        _require(
            self.strategy != "none" or not given, f"--strategy none keeps every token: leave out {names}, or merge"
        )
        _require(
            self.fidelity is None or (self.strategy == "tree" and 0 < self.fidelity < 1),
            f"--fidelity {self.fidelity} must be above 0 and below 1, and needs --strategy tree",
        )
        _choice("embedding", self.embedding, get_args(EmbeddingChoice))
        _choice("weights", self.weights, get_args(TokenWeights))
        _require(
            self.weights == "uniform" or self.strategy == "tree",
            f"--weights {self.weights} needs --strategy tree: leave it out with --strategy {self.strategy}",
        )
        _require(
            self.weights != "motion" or self.encoder_keep == 1,
            f"--weights motion needs the whole patch grid, and --encoder-keep {self.encoder_keep} merges patches "
            "inside the encoder: leave one of them out",
        )
        gap = self.max_gap_frames
        _require(gap is None or gap >= 0, f"--max-gap-frames {gap} must be 0 or more")
        _require(
            gap is None or self.strategy == "tree",
            f"--max-gap-frames needs --strategy tree: leave it out with --strategy {self.strategy}",
        )
        _require(
            self.strategy != "tree" or (factor is None and self.merge_share == 1),
            "--partition-factor and --merge-share do not apply to --strategy tree: give --keep, --tokens-per-clip or "
            "--fidelity, or choose --strategy naive",
        )
        _require(
            (self.strategy == "learnable" or self.weights == "learnt") == (self.scorer is not None),
            "--scorer DIR (made by `vtm train`) goes together with --strategy learnable or with --weights learnt",
        )

        _require(
            self.encoder_keep == 1 or self.strategy not in ("center", "boundary", "motion", "learnable"),
            f"--strategy {self.strategy} needs the whole patch grid, and --encoder-keep {self.encoder_keep} merges "
            "patches inside the encoder: leave one of them out",
        )
        levels = self.reuse_levels
        _require(
            levels is None or 0 <= levels <= 255,
            f"--reuse-levels {levels} must be 0 to 255: it is a mean difference of uint8 values; try 2",
        )
        _require(
            levels is None or self.encoder_keep == 1,
            f"--reuse-levels {levels} needs the whole patch grid, and --encoder-keep {self.encoder_keep} merges "
            "patches inside the encoder: leave one of them out",
        )

        _require(
            levels is None or self.embedding != "always",
            f"--reuse-levels {levels} encodes single patches, of which no image embedding can be made: leave out "
            "--embedding always",
        )
        _require(
            not self.compile or (levels is None and self.encoder_keep == 1),
            "--compile does not work with --encoder-keep or --reuse-levels: leave one out",
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
    def has_amount(self) -> bool:
        """Whether a share, a count, a fidelity or a factor was given."""
        return any(getattr(self, name) is not None for name in AMOUNTS)

    @property
    def share_kept(self) -> float | None:
        """The share to keep, where no count, factor or fidelity says otherwise."""
        if self.strategy == "none":
            return 1.0
        if self.keep is None and self.has_amount:
            return None
        return DEFAULT_KEEP if self.keep is None else self.keep


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How the work is carried out; nothing here changes a clip's bytes."""

    format: tuple[ShardFormat, ...] = ("parquet",)
    """Shard formats to write: parquet, webdataset, or both separated by a comma."""
    engine: EngineName = "auto"
    """`inline` runs in this process, `ray` in Ray actors. `auto` is `inline` on one machine with at most one GPU, and
    `ray` where a cluster is named or several GPUs are used."""
    address: str | None = None
    """Address of a Ray cluster to join. By default RAY_ADDRESS is used where it is set."""
    workers: int | None = None
    """Number of decode workers. By default one per core."""
    device: DeviceName = "auto"
    """Device that encodes: `auto` uses GPUs where there are any."""
    gpus: int | None = None
    """Number of GPUs to encode on; 0 encodes on the CPU. By default all of them. With `--device cpu` they are reserved
    but not used, as a rehearsal."""
    gpu_share: float = 1.0
    """Share of a GPU that one encoder takes; 0.5 puts two encoders on each GPU."""
    wait_for_nodes_s: float = 0.0
    """How long to wait for GPUs that an autoscaler may add to the cluster."""
    unit_clips: int = 2
    """Clips that a worker decodes in one pass."""
    shard_clips: int = 32
    """Maximum number of clips per shard."""
    unit_timeout_s: float = 300.0
    """Stop a decode worker that makes no progress for this long."""
    encode_timeout_s: float = 600.0
    """Stop an encode worker that makes no progress for this long."""
    decode_memory_mb: int = 4096
    """Maximum memory that a decode worker may allocate after it has started."""
    retry_failed: bool = False
    """Try again what earlier runs recorded as failed."""
    limit: int | None = None
    """Stop after the first clips, as a test of settings. Each is then a unit and a shard of its own."""

    def __post_init__(self) -> None:
        _choice("engine", self.engine, get_args(EngineName))
        _choice("device", self.device, get_args(DeviceName))
        _require(0 < self.gpu_share <= 1, f"--gpu-share {self.gpu_share} must be above 0 and at most 1")
        _require(
            self.device != "cuda" or self.gpus != 0, "--device cuda and --gpus 0 contradict each other: leave one out"
        )
        _require(bool(self.format), "--format needs parquet, webdataset or both")
        for name in self.format:
            _choice("format", name, get_args(ShardFormat))
        for count_name, least in (("workers", 1), ("gpus", 0), ("unit_clips", 1), ("shard_clips", 1), ("limit", 1)):
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
        SettingsError: the file cannot be read, or holds a name that is not a setting.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"--config {path} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"--config {path} cannot be read as TOML: {error}") from error
    # `vtm submit` reads that table.
    settings = {name.replace("-", "_"): value for name, value in data.items() if name != "cluster"}
    known = sorted({f.name for cls in (Recipe, Execution) for f in fields(cls)} | {"inputs", "out"})
    for name, value in settings.items():
        if name not in known:
            hint = f"{nearest(name, known)}known are {', '.join(known)}"
            raise SettingsError(f"--config {path}: {name} is not a setting: {hint}")
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
        raise SettingsError(f"--fps {text} is not a frame rate: give a number such as 1, 0.5 or 30000/1001") from error
