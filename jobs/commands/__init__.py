"""The commands of `vtm`, one file each."""
