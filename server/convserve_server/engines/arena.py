"""One arena for the memory that all sessions on the CPU compute in.

Else each session has one of its own, which keeps what its largest batch needed: 10 MiB for a digit
net whose file is 0.4. Batches of several models then share what is there, and what none needs any
more is given back when a version is unloaded.

Source: https://onnxruntime.ai/docs/get-started/with-c.html, "Share allocator(s) between sessions".
"""

import threading
from functools import lru_cache
from typing import Any

import numpy as np
import onnxruntime as ort

#: A net that does nothing: float32 [1] to itself.
NOTHING = (
    b'\x08\x08:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01'
    b"\x12\x04\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)

_lock = threading.Lock()


def use_shared(settings: ort.SessionOptions) -> None:
    """Has a session on the CPU use the arena of all."""
    with _lock:
        _register()
    settings.add_session_config_entry("session.use_env_allocators", "1")


def shrink() -> None:
    """Gives back what no session has in use; does nothing before there is a session."""
    with _lock:
        if _register.cache_info().currsize:
            _shrink(_register())


@lru_cache(maxsize=1)
def _register() -> Any:
    """Makes the arena, once in a process; returns a session that has nothing to compute."""
    # It doubles. Growing by what is asked for, it held 1.4 times as much after batches of all
    # sizes.
    memory = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    ort.create_and_register_allocator(memory, None)
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.add_session_config_entry("session.use_env_allocators", "1")
    session = ort.InferenceSession(NOTHING, settings, providers=["CPUExecutionProvider"])
    # The first piece is kept for ever: it is a small one.
    _shrink(session)
    return session


def _shrink(session: Any) -> None:
    """Runs a session, after which the arena shrinks."""
    options = ort.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    session.run(None, {"x": np.zeros(1, np.float32)}, options)
