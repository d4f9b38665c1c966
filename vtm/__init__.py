"""Video token merging: vision transformers and the merge of their tokens over space and time."""
