"""Recipes: what one may say, those that come along, and their text."""
