"""An engine with a fixed set of batch sizes, each with bound buffers: what CUDA graphs need."""

import queue
import threading
from collections.abc import Sequence
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import onnxruntime as ort

from convserve_server.batch_sizes import bucket_sizes, largest_worthwhile, least_seconds
from convserve_server.session_engine import (
    CUDA,
    INPUT,
    OUTPUT,
    Pixels,
    Probabilities,
    SessionEngine,
)

#: cuDNN chooses its algorithms in the first run, and the graph is captured.
_WARM_RUNS = 2


class BoundEngine(SessionEngine):
    """Rounds batches up to fixed buckets with bound buffers and, on CUDA, one captured graph each.

    A captured graph replays on the addresses it was captured with, so the buffers of a bucket are
    bound once and rewritten, never rebound. There are two sets of buckets: while the device works
    on one, the next batch is copied into the other and the answers of the last are copied out. The
    runs themselves follow each other, since a session with captured graphs takes one thread.

    Source: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html

    Args:
        session: of ONNX Runtime.
        provider: its name.
        max_batch: most images in one run.
    """

    parallel = 2

    def __init__(self, session: Any, provider: str, max_batch: int) -> None:
        super().__init__(session, provider, max_batch)
        self._running = threading.Lock()
        # The graph annotation -1 turns capturing off, and 0 is the default of runs without one.
        graphs = count(1)
        self._all = [
            [
                _Bucket(session, provider, next(graphs), rows, self.image_shape, self.classes)
                for rows in bucket_sizes(max_batch)
            ]
            for _ in range(self.parallel)
        ]
        self._free: queue.SimpleQueue[list[_Bucket]] = queue.SimpleQueue()
        for buckets in self._all:
            self._free.put(buckets)

    def run(self, images: Sequence[Pixels]) -> Probabilities:
        """See Engine.run."""
        rows = sum(len(piece) for piece in images)
        buckets = self._free.get()
        try:
            bucket = next(bucket for bucket in buckets if bucket.rows >= rows)
            return bucket.run(self.gather(images, bucket.rows), self._running)[:rows]
        finally:
            self._free.put(buckets)

    def warm_up(self) -> None:
        """Run the buckets from the smallest up, choose the largest, and forget those beyond it."""
        first, *others = self._all
        by_rows = {bucket.rows: bucket for bucket in first}

        def seconds(rows: int) -> float:
            self._warm(by_rows[rows])
            pixels = np.zeros((rows, *self.image_shape), np.uint8)
            return least_seconds(partial(by_rows[rows].run, pixels, self._running))

        # One batch on a device is over before anybody minds.
        self.max_batch = largest_worthwhile(seconds, list(by_rows), float("inf"))
        for buckets in self._all:
            del buckets[1 + list(by_rows).index(self.max_batch) :]
        for buckets in others:
            for bucket in buckets:
                self._warm(bucket)

    def _warm(self, bucket: "_Bucket") -> None:
        for _ in range(_WARM_RUNS):
            bucket.run(np.zeros((bucket.rows, *self.image_shape), np.uint8), self._running)


class _Bucket:
    """Buffers and graph for one batch size."""

    def __init__(
        self,
        session: Any,
        provider: str,
        graph: int,
        rows: int,
        image_shape: tuple[int, int, int],
        classes: int,
    ) -> None:
        device = "cuda" if provider == CUDA else "cpu"
        self.rows = rows
        self._session = session
        self._input = ort.OrtValue.ortvalue_from_shape_and_type(
            (rows, *image_shape), np.uint8, device, 0
        )
        self._output = ort.OrtValue.ortvalue_from_shape_and_type(
            (rows, classes), np.float32, device, 0
        )
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(INPUT, self._input)
        self._binding.bind_ortvalue_output(OUTPUT, self._output)
        self._options = ort.RunOptions()
        if provider == CUDA:
            self._options.add_run_config_entry("gpu_graph_id", str(graph))

    def run(self, batch: Pixels, running: threading.Lock) -> Probabilities:
        """Copy in, run while nobody else does, copy out."""
        self._input.update_inplace(np.ascontiguousarray(batch))
        with running:
            self._session.run_with_iobinding(self._binding, self._options)
        # numpy() of a CPU value is a view of the bound buffer, which the next run overwrites.
        output: Probabilities = np.array(self._output.numpy(), copy=True)
        return output
