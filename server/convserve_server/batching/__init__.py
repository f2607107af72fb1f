"""Batches: calls wait in queues, one for each model, until the engine is free."""
