"""Vision transformers from pretrained checkpoints: frames to tokens."""

from vtm.encoders.checkpoint.description import EncoderDescription, describe_encoder
from vtm.encoders.checkpoint.load import load_encoder
from vtm.encoders.encoder import Encoder
from vtm.encoders.image import ImageSpec, read_image_spec
from vtm.encoders.output import EncoderOutput
from vtm.encoders.reuse import reuse_map
from vtm.encoders.reuse.sweep import encode_changed
from vtm.encoders.text import TextEncoder, load_text_encoder
from vtm.errors import EncoderError

__all__ = [
    "Encoder",
    "EncoderDescription",
    "EncoderError",
    "EncoderOutput",
    "ImageSpec",
    "TextEncoder",
    "describe_encoder",
    "encode_changed",
    "load_encoder",
    "load_text_encoder",
    "read_image_spec",
    "reuse_map",
]
