"""`sweep`: a search over fields of a recipe, on a validation of the training pictures.

`space` says what is searched, `trial` trains once, `study` draws, keeps and compares trials.
"""
