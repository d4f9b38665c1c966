"""The error tree of token merging: whatever `vtm` raises on purpose is one line that a user can act on.

VtmError (ValueError)
├── MergeError       a merge that cannot be carried out as asked
├── EncoderError     an encoder that cannot be loaded or run as asked
├── NetworkError     a network or scorer that cannot be built, or an input that it cannot take
├── TrainingError    a training run that cannot start or go on
└── RankError        another process of a training run is gone
"""

from __future__ import annotations


class VtmError(ValueError):
    """Anything this package raises on purpose: the value, what was expected, what to try."""


class MergeError(VtmError):
    """A merge that cannot be carried out as asked."""


class EncoderError(VtmError):
    """An encoder that cannot be loaded or run as asked."""


class NetworkError(VtmError):
    """A network or scorer that cannot be built, or an input that it cannot take."""


class TrainingError(VtmError):
    """A training run that cannot start or go on."""


class RankError(VtmError):
    """Another process of a training run is gone, or does not answer."""
