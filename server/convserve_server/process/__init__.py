"""What the supervisor and its workers say to each other, and what follows from it."""
