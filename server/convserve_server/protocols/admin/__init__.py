"""convserve.v1.Admin: what an operator asks of a server that runs (protos/admin.proto)."""
