"""What is between clients on a network and the native front: TLS, and limits that it lacks."""
