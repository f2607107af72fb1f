"""Models, queues and batches; knows no protocol, no ONNX Runtime and no network."""
