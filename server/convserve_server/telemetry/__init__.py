"""What the server says of itself to those who operate it."""
