"""What a run is asked to do: the recipe, which decides the bytes, and the execution, which does not."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

from pipeline.settings_rules import check_execution, check_recipe
from pipeline.values import DecoderName, FrameChoice, Resizer

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
        check_recipe(self)

    @property
    def reads_motion(self) -> bool:
        """Whether the merge needs each patch's motion."""
        return "motion" in (self.strategy, self.weights)

    @property
    def reads_saliency(self) -> bool:
        """Whether the merge needs the encoder's own attention."""
        return "saliency" in (self.strategy, self.weights)

    @property
    def amounts_given(self) -> tuple[str, ...]:
        """The settings that say how many tokens are left and have a value."""
        return tuple(name for name in AMOUNTS if getattr(self, name) is not None)

    @property
    def share_kept(self) -> float | None:
        """The share to keep, where no count, factor or fidelity says otherwise."""
        if self.strategy == "none":
            return 1.0
        if self.keep is None and self.amounts_given:
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
        check_execution(self)
