"""The machine, or the container: its CPUs, memory and port, and how a server uses them."""
