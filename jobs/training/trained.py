"""A trained network with the tokens and labels that it is to be used on: refused where they do not match."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from jobs.training.clip_batches import Caches
from jobs.training.labels import LabelSet
from pipeline.errors import SettingsError
from vtm import NetworkError
from vtm.network import Origin, VideoTokenMerging, load_network, stored_origin


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A network and what it learned from."""

    folder: Path
    network: VideoTokenMerging
    origin: Origin

    def renumbered(self, labels: LabelSet, path: Path) -> LabelSet:
        """Labels whose class numbers are the network's outputs: classes go by name, whatever their order.

        Args:
            labels: of any videos.
            path: where they are from, for the message.

        Raises:
            SettingsError: another task, or a class that the network does not know.
        """
        if labels.task != self.network.config.task:
            raise SettingsError(
                f"{self.folder} was trained for a {self.network.config.task}, {path} is a {labels.task}"
            )
        if labels.task == "regression":
            return labels
        used = sorted({int(label.target) for label in labels.labels})
        try:
            number = {old: self.origin.number_of(labels.classes[old], self.folder) for old in used}
        except NetworkError as error:
            raise SettingsError(f"{path}: {error}") from error
        renumbered = tuple(replace(label, target=number[int(label.target)]) for label in labels.labels)
        return replace(labels, labels=renumbered, classes=self.origin.classes)


def load_trained(folder: Path, caches: Caches, device: str) -> Trained:
    """Load a network for the tokens of some caches.

    Raises:
        NetworkError: the folder holds no network, or it was trained on other tokens.
        SettingsError: the folder does not say what it was trained on.
    """
    network, origin = load_network(folder, device), stored_origin(folder)
    if origin is None:
        raise SettingsError(f"{folder} does not say what it was trained on: train again with this version")
    origin.check_tokens(caches.origin, folder)
    return Trained(folder, network, origin)
