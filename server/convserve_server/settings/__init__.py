"""The settings of a server, each defined once: for flag, variable, file, help and docs."""
