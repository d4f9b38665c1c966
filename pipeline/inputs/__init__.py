"""What the user names, as video sources."""
