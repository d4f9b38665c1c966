"""What the headers of coded pictures tell without decoding them, codec by codec."""

from pipeline.video.coding.facts import Coded, HeaderReader
from pipeline.video.coding.readers import header_reader

__all__ = ["Coded", "HeaderReader", "header_reader"]
