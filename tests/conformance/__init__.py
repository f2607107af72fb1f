"""Whether a server keeps to the Open Inference Protocol, version 2: a suite for any server.

    python -m tests.conformance --grpc 127.0.0.1:8001 --http 127.0.0.1:8000

It shares no code with our server: its messages are made from the contract alone, in a descriptor
pool of their own, and it knows a server by its addresses. docs/open-inference-conformance.md says
which models a server has to have, and what the verdicts mean.
"""

import os

# ONNX Runtime reads it when it is imported, by whatever comes after this.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
