"""The Convserve server: ONNX models behind gRPC, with batching."""

import os

# ONNX Runtime reports to its maker, and keeps files in HOME, unless this is set before its import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
