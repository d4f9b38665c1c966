"""Vision transformers from pretrained checkpoints: frames to tokens."""

from vtm.encoders.description import EncoderDescription, describe_encoder
from vtm.encoders.encoder import Encoder
from vtm.encoders.errors import EncoderError
from vtm.encoders.image import ImageSpec, read_image_spec
from vtm.encoders.load import load_encoder
from vtm.encoders.output import EncoderOutput

__all__ = [
    "Encoder",
    "EncoderDescription",
    "EncoderError",
    "EncoderOutput",
    "ImageSpec",
    "describe_encoder",
    "load_encoder",
    "read_image_spec",
]
