"""Checkpoints in the Hugging Face format: where their files are and what their configuration and tensors mean."""

from vtm.encoders.checkpoint.files import CONFIG, PREPROCESSOR, Checkpoint, open_checkpoint, read_json

__all__ = ["CONFIG", "PREPROCESSOR", "Checkpoint", "open_checkpoint", "read_json"]
