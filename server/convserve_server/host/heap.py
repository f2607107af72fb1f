"""Gives back to the system what malloc keeps for later."""

import ctypes
import threading
from collections.abc import Callable

#: How often, s. Each time costs some milliseconds.
_INTERVAL_S = 1.0

_malloc_trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)


def trim_from_now_on(stop: threading.Event) -> None:
    """Trims in a thread until stop is set; see trim().

    Messages come in pieces too small for malloc to map by themselves. The memory of many large
    ones would stay with the process: hundreds of MiB that others, or larger pieces, cannot have.
    """

    def loop() -> None:
        while not stop.wait(_INTERVAL_S):
            trim()

    if _malloc_trim is not None:
        threading.Thread(target=loop, name="heap", daemon=True).start()


def trim() -> None:
    """Gives back now what is kept; does nothing where malloc is not glibc's."""
    if _malloc_trim is not None:
        _malloc_trim(0)
