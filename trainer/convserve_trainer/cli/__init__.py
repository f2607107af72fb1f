"""The commands of convserve-train, a file each; `parser` puts them together."""
