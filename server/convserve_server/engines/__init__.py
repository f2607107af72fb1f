"""ONNX Runtime, in batches of fixed sizes, on CPUs and on CUDA."""
