"""The Convserve server: ONNX models behind gRPC, with batching."""
