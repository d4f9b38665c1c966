"""Videos to merged token shards: inputs, decode, encode, shards, engines, and reading shards back."""
