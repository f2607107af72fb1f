"""Clients of others, unmodified, against our server; each in an environment of its own.

`make test-open-inference` makes the environments and runs these tests; plain `make test` does not.
"""
