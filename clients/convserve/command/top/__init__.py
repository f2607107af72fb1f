"""`convserve top`: what a server does, read from its metrics page again and again."""
