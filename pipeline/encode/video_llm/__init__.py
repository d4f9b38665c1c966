"""The vision part of video-LLMs: the tokens that their language models read, run by `transformers`, merged after it."""
