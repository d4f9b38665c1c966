"""Cached tokens back into the models that made them. `transformers` is imported when it is used."""

from pipeline.consumers.answers import answer, answer_loss
from pipeline.consumers.batches import batch_inputs
from pipeline.consumers.inputs import video_inputs

__all__ = ["answer", "answer_loss", "batch_inputs", "video_inputs"]
