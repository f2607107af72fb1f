"""ONNX Runtime, imported when it is needed and without its telemetry."""

import os
from types import ModuleType


def load() -> ModuleType:
    """Returns the module onnxruntime.

    Left alone, it keeps an id of the machine and a database of events in the user's cache, and
    warns where it cannot.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    loaded: ModuleType = onnxruntime
    return loaded
