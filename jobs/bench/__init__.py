"""Benchmarks, one file each, with peers measured in the same run."""
