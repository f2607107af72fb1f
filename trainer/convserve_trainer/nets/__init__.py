"""Keras nets, as a recipe describes them, and the backends that run them."""
