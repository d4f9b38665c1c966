"""Patches that do not change are not encoded again: which they are, and the encoder's pass over the others."""

from vtm.encoders.reuse.changes import is_encoded, reuse_map
from vtm.encoders.reuse.sweep import encode_changed

__all__ = ["encode_changed", "is_encoded", "reuse_map"]
