"""Encoders that the project's own vision transformer does not know, run by `transformers` and merged after it."""
