"""What a network learned from: kept with its weights, so that it is not used on anything else in silence."""

from __future__ import annotations

from dataclasses import dataclass

from vtm.errors import NetworkError


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The tokens and the labels that a network was trained on."""

    encoder: str
    """Name of the encoder, for people."""
    weights_sha256: str
    """Hash of the encoder's weights."""
    layer: int
    """The encoder's output block, as it was asked for."""
    fps: str
    """Sampled frames a second, a fraction as text."""
    classes: tuple[str, ...] = ()
    """Class names by output; empty for a regression."""
    labels_sha256: str = ""
    """Hash of which video has which label."""
    split_sha256: str = ""
    """Hash of which video is in which split."""

    def check_tokens(self, other: Origin, folder: object) -> None:
        """See that tokens are of the kind that the network was trained on.

        Args:
            other: the origin of the tokens at hand.
            folder: of the network, for the message.

        Raises:
            NetworkError: another encoder, output block or rate; it says both.
        """
        kinds = (("encoder", "weights_sha256"), ("layer", "layer"), ("fps", "fps"))
        for shown, name in kinds:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                trained, given = getattr(self, shown), getattr(other, shown)
                hashes = f" (weights {mine[:12]} and {theirs[:12]})" if shown == "encoder" else ""
                raise NetworkError(
                    f"{folder} was trained on tokens of {shown} {trained}, these are of {shown} {given}{hashes}: "
                    f"take the same {shown}, or train again"
                )

    def number_of(self, name: str, folder: object) -> int:
        """The output of a class.

        Raises:
            NetworkError: the network has no such class.
        """
        if name not in self.classes:
            raise NetworkError(f"{folder} has no class {name!r}: it was trained on {', '.join(self.classes)}")
        return self.classes.index(name)
