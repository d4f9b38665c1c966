"""Video token merging: vision transformers and the merge of their tokens over space and time."""

from importlib.metadata import PackageNotFoundError, version

from vtm.encoders import (
    Encoder,
    EncoderOutput,
    ImageSpec,
    load_encoder,
    load_text_encoder,
    read_image_spec,
)
from vtm.errors import EncoderError, MergeError, NetworkError, TrainingError, VtmError
from vtm.fidelity import fidelity, token_cosines
from vtm.growing import merge_tree, tree_of_fidelity
from vtm.merge import plan_from_targets
from vtm.motion import token_motion
from vtm.plan import Grid, MergePlan, identity_plan
from vtm.size_attention import size_bias, size_bias_mask, size_bias_score_mod
from vtm.strategies import STRATEGIES, Strategy, merge_plan
from vtm.tome import bipartite_plan, removal_schedule
from vtm.tree import MergeTree
from vtm.weights import weighted_mean, weights_from

__all__ = [
    "STRATEGIES",
    "Encoder",
    "EncoderError",
    "EncoderOutput",
    "Grid",
    "ImageSpec",
    "MergeError",
    "MergePlan",
    "MergeTree",
    "NetworkError",
    "Strategy",
    "TrainingError",
    "VtmError",
    "bipartite_plan",
    "fidelity",
    "identity_plan",
    "load_encoder",
    "load_text_encoder",
    "merge_plan",
    "merge_tree",
    "plan_from_targets",
    "read_image_spec",
    "removal_schedule",
    "size_bias",
    "size_bias_mask",
    "size_bias_score_mod",
    "token_cosines",
    "token_motion",
    "tree_of_fidelity",
    "weighted_mean",
    "weights_from",
]

try:
    __version__ = version("vtm-pipeline")
except PackageNotFoundError:
    # A checkout on PYTHONPATH that was never installed.
    __version__ = "0+unknown"
