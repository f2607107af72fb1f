"""The machine and its file system: limits, locks, signals, files that appear whole."""
