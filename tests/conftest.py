"""Settled before any test imports ONNX Runtime: it reports to its maker unless this is set."""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
