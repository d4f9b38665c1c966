"""The paper's network: transformer blocks that merge tokens between them, its learnable scorer, and their folders."""

from vtm.errors import NetworkError
from vtm.network.config import Auxiliary, NetworkConfig, NetworkStrategy, Task
from vtm.network.count import tokens_left
from vtm.network.network import NetworkOutput, VideoTokenMerging
from vtm.network.origin import Origin
from vtm.network.scorer import SaliencyScorer, ScorerConfig, scorer_of_network
from vtm.network.store import load_network, load_scorer, save_model, stored_kind, stored_origin

__all__ = [
    "Auxiliary",
    "NetworkConfig",
    "NetworkError",
    "NetworkOutput",
    "NetworkStrategy",
    "Origin",
    "SaliencyScorer",
    "ScorerConfig",
    "Task",
    "VideoTokenMerging",
    "load_network",
    "load_scorer",
    "save_model",
    "scorer_of_network",
    "stored_kind",
    "stored_origin",
    "tokens_left",
]
