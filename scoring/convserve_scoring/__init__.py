"""Offline scoring: a model answers for every image of a folder or bucket, on engines that exist."""
