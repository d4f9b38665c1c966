"""Finding clips and moments of a run: by pictures, by clips, by spans of a video, by text."""
