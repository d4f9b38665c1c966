"""Video token merging: vision transformers and the merge of their tokens over space and time."""

from vtm.fidelity import fidelity, token_cosines
from vtm.merge import STRATEGIES, Strategy, merge_plan, plan_from_targets
from vtm.plan import Grid, MergeError, MergePlan, identity_plan

__all__ = [
    "STRATEGIES",
    "Grid",
    "MergeError",
    "MergePlan",
    "Strategy",
    "fidelity",
    "identity_plan",
    "merge_plan",
    "plan_from_targets",
    "token_cosines",
]
