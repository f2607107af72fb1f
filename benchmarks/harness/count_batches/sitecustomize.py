"""Python imports this at its start where PYTHONPATH names the folder: makes workers count images.

Nothing that a client can see tells how many images an engine computed for callers that were gone by
then. So the observer of each batcher is wrapped, in workers of this and of earlier revisions alike;
batch_count.py reads the figures.
"""

import mmap
import os
import struct
import sys

_WORKER = "convserve_server.process.worker"


def _count(path: str) -> None:
    from convserve_server.core import batcher
    from convserve_server.telemetry.observer import NO_OBSERVER

    with open(path, "r+b") as file:
        shared = mmap.mmap(file.fileno(), 0)
    init = batcher.Batcher.__init__
    counts = [0, 0]

    class Counting:
        def __init__(self, observer: object) -> None:
            self._observer = observer

        def __getattr__(self, name: str) -> object:
            return getattr(self._observer, name)

        def batch(self, model: str, images: int, *more: float) -> None:
            counts[0] += 1
            counts[1] += images
            struct.pack_into("=qq", shared, 0, *counts)
            self._observer.batch(model, images, *more)  # type: ignore[attr-defined]

    def counting(self: object, *arguments: object, **named: object) -> None:
        named["observer"] = Counting(named.get("observer", NO_OBSERVER))
        init(self, *arguments, **named)  # type: ignore[arg-type]

    batcher.Batcher.__init__ = counting  # type: ignore[method-assign]


if _WORKER in sys.orig_argv and (_path := os.environ.get("BENCHMARK_BATCH_COUNT")):
    _count(_path)
