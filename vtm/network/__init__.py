"""The paper's network: transformer blocks that merge tokens between them, its learnable scorer, and their folders."""

from vtm.network.config import Auxiliary, NetworkConfig, NetworkError, NetworkStrategy
from vtm.network.count import tokens_left
from vtm.network.network import NetworkOutput, VideoTokenMerging
from vtm.network.scorer import SaliencyScorer, ScorerConfig, scorer_of_network
from vtm.network.store import load_network, load_scorer, save_model, stored_kind

__all__ = [
    "Auxiliary",
    "NetworkConfig",
    "NetworkError",
    "NetworkOutput",
    "NetworkStrategy",
    "SaliencyScorer",
    "ScorerConfig",
    "VideoTokenMerging",
    "load_network",
    "load_scorer",
    "save_model",
    "scorer_of_network",
    "stored_kind",
    "tokens_left",
]
