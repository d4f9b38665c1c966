"""Reading committed token sets back, at any budget."""
