"""What protects a server."""
