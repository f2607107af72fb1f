"""Probabilities, what they are worth against labels, and how they are calibrated."""
