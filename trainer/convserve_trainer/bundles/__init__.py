"""Bundles, a net and its manifest in model.onnx: made, published, read, scored, compared."""
