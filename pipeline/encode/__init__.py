"""Frames to token sets: the encoder, the merge, and what goes with them."""
