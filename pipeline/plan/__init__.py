"""Scanned videos to clips, units and shards, and the table that holds them: values, no pixels."""
