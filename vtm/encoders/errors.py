"""What goes wrong with an encoder that a user can put right."""

from __future__ import annotations


class EncoderError(ValueError):
    """An encoder that cannot be loaded or run as asked: one line with the value, what was expected, what to try."""
