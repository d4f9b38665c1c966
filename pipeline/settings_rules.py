"""Which settings can be carried out, alone and together: a rule that is broken gives one line naming the options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args, get_origin, get_type_hints

from pipeline.errors import SettingsError
from pipeline.nearest_name import nearest

if TYPE_CHECKING:
    from pipeline.settings import Execution, Recipe

HEX_DIGITS = "0123456789abcdefABCDEF"


def check_recipe(recipe: Recipe) -> None:
    """Refuse a recipe that cannot be carried out.

    Raises:
        SettingsError: a setting is out of its range, or does not go together with another one.
    """
    _check_choices(recipe)
    _check_pictures(recipe)
    _check_decoder(recipe)
    _check_numbers(recipe)
    _check_amount(recipe)
    _check_tree(recipe)
    _check_scorer(recipe)
    _check_reuse(recipe)
    _check_whole_grid(recipe)
    _check_compiling(recipe)


def check_execution(execution: Execution) -> None:
    """Refuse an execution that cannot be carried out.

    Raises:
        SettingsError: a setting is out of its range, or contradicts another one.
    """
    _check_choices(execution)
    _check_devices(execution)
    _check_counts(execution)
    _check_limits(execution)


def require(ok: bool, message: str) -> None:
    """Go on only if a rule is kept.

    Raises:
        SettingsError: it is not; with the message.
    """
    if not ok:
        raise SettingsError(message)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _check_choices(settings: Recipe | Execution) -> None:
    """Fields of a `Literal` type, or a tuple of them, hold nothing else."""
    for name, hint in get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        is_tuple = get_origin(hint) is tuple
        choice = get_args(hint)[0] if is_tuple else hint
        if get_origin(choice) is Literal:
            for one in value if is_tuple else (value,):
                _require_choice(name, one, get_args(choice))


def _require_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        hint = f"{nearest(value, known)}choose one of {', '.join(known)}"
        raise SettingsError(f"{_option(name)} {value} is unknown: {hint}")


def _check_pictures(recipe: Recipe) -> None:
    colour = recipe.alpha_background
    require(
        colour is None or (len(colour) == 6 and all(digit in HEX_DIGITS for digit in colour)),
        f"--alpha-background {colour} is not a colour: give six hex digits, for example ffffff for white",
    )


def _check_decoder(recipe: Recipe) -> None:
    is_nvdec = recipe.decoder == "nvdec"
    require(
        not is_nvdec or recipe.resize == "torch",
        f"--resize {recipe.resize} resizes on the CPU, and --decoder nvdec on the GPU: leave one of them out",
    )
    require(
        not is_nvdec or not recipe.reads_motion,
        "--decoder nvdec gives no motion vectors: leave it out with --strategy motion or --weights motion",
    )


def _check_numbers(recipe: Recipe) -> None:
    batch = recipe.batch_frames
    require(recipe.fps > 0, f"--fps {recipe.fps} must be above 0, for example 1 or 30000/1001")
    require(recipe.clip_frames > 0, f"--clip-frames {recipe.clip_frames} must be 1 or more")
    require(batch is None or batch > 0, f"--batch-frames {batch} must be 1 or more")
    require(recipe.layer != 0, "--layer 0 is not a block: the first is 1, the last is -1")
    for name in ("keep", "encoder_keep", "merge_share"):
        share = getattr(recipe, name)
        require(
            share is None or 0 < share <= 1,
            f"{_option(name)} {share} must be above 0 and at most 1: it is a share, 0.1 keeps a tenth",
        )


def _check_amount(recipe: Recipe) -> None:
    """How many tokens are left is said once, and only where tokens are merged."""
    tokens, factor, given = recipe.tokens_per_clip, recipe.partition_factor, recipe.amounts_given
    names = " and ".join(map(_option, given))
    require(tokens is None or tokens > 0, f"--tokens-per-clip {tokens} must be 1 or more")
    require(factor is None or factor > 1, f"--partition-factor {factor} must be 2 or more")
    require(len(given) <= 1, f"{names} cannot be used together: give one of them")
    require(recipe.strategy != "none" or not given, f"--strategy none keeps every token: leave out {names}, or merge")


def _check_tree(recipe: Recipe) -> None:
    """What only a tree can do, and what it cannot."""
    fidelity, gap, is_tree = recipe.fidelity, recipe.max_gap_frames, recipe.strategy == "tree"
    require(
        fidelity is None or (is_tree and 0 < fidelity < 1),
        f"--fidelity {fidelity} must be above 0 and below 1, and needs --strategy tree",
    )
    require(
        recipe.weights == "uniform" or is_tree,
        f"--weights {recipe.weights} needs --strategy tree: leave it out with --strategy {recipe.strategy}",
    )
    require(gap is None or gap >= 0, f"--max-gap-frames {gap} must be 0 or more")
    require(
        gap is None or is_tree,
        f"--max-gap-frames needs --strategy tree: leave it out with --strategy {recipe.strategy}",
    )
    require(
        not is_tree or (recipe.partition_factor is None and recipe.merge_share == 1),
        "--partition-factor and --merge-share do not apply to --strategy tree: give --keep, --tokens-per-clip or "
        "--fidelity, or choose --strategy naive",
    )


def _check_scorer(recipe: Recipe) -> None:
    require(
        (recipe.strategy == "learnable" or recipe.weights == "learnt") == (recipe.scorer is not None),
        "--scorer DIR (made by `vtm train`) goes together with --strategy learnable or with --weights learnt",
    )


def _check_whole_grid(recipe: Recipe) -> None:
    """What reads every patch of a frame does not go with merging inside the encoder."""
    for option, needs_grid in (
        (f"--weights {recipe.weights}", recipe.weights == "motion"),
        (f"--strategy {recipe.strategy}", recipe.strategy in ("center", "boundary", "motion", "learnable")),
        (f"--reuse-levels {recipe.reuse_levels}", recipe.reuse_levels is not None),
    ):
        require(
            not needs_grid or recipe.encoder_keep == 1,
            f"{option} needs the whole patch grid, and --encoder-keep {recipe.encoder_keep} merges patches "
            "inside the encoder: leave one of them out",
        )


def _check_reuse(recipe: Recipe) -> None:
    levels = recipe.reuse_levels
    require(
        levels is None or 0 <= levels <= 255,
        f"--reuse-levels {levels} must be 0 to 255: it is a mean difference of uint8 values; try 2",
    )
    require(
        levels is None or recipe.embedding != "always",
        f"--reuse-levels {levels} encodes single patches, of which no image embedding can be made: leave out "
        "--embedding always",
    )


def _check_compiling(recipe: Recipe) -> None:
    require(
        not recipe.compile or (recipe.reuse_levels is None and recipe.encoder_keep == 1),
        "--compile does not work with --encoder-keep or --reuse-levels: leave one out",
    )


def _check_devices(execution: Execution) -> None:
    require(0 < execution.gpu_share <= 1, f"--gpu-share {execution.gpu_share} must be above 0 and at most 1")
    require(
        execution.device != "cuda" or execution.gpus != 0,
        "--device cuda and --gpus 0 contradict each other: leave one out",
    )


def _check_counts(execution: Execution) -> None:
    require(bool(execution.format), "--format needs parquet, webdataset or both")
    for name, least in (("workers", 1), ("gpus", 0), ("unit_clips", 1), ("shard_clips", 1), ("limit", 1)):
        count = getattr(execution, name)
        require(count is None or count >= least, f"{_option(name)} {count} must be {least} or more")


def _check_limits(execution: Execution) -> None:
    """Times and memory."""
    wait_s, memory_mb = execution.wait_for_nodes_s, execution.decode_memory_mb
    require(wait_s >= 0, f"--wait-for-nodes-s {wait_s} must be 0 or more")
    for name in ("unit_timeout_s", "encode_timeout_s"):
        timeout_s = getattr(execution, name)
        require(timeout_s > 0, f"{_option(name)} {timeout_s} must be above 0")
    require(memory_mb >= 256, f"--decode-memory-mb {memory_mb} must be 256 or more")
