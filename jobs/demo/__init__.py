"""The film and the weights of the demo."""
