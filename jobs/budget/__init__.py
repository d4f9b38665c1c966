"""What a budget of tokens costs and keeps, measured on a user's own videos before anything is extracted."""
