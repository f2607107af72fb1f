"""Training: steps, epochs, their order and progress."""
