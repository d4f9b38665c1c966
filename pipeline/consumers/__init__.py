"""Cached tokens back into the models that made them. `transformers` is imported when it is used."""
