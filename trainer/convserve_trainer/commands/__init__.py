"""Options of the command line, shared by several commands or too many for `main`."""
