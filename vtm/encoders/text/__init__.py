"""The text towers that go with the image embeddings of CLIP and SigLIP."""

from vtm.encoders.text.tower import TextEncoder, load_text_encoder

__all__ = ["TextEncoder", "load_text_encoder"]
