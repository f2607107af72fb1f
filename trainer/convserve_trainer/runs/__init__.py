"""A training on disk: its checkpoints, history and logs, to go on from."""
