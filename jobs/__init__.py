"""The command `vtm`: one file a command, recipes, cluster submission, benchmarks."""
