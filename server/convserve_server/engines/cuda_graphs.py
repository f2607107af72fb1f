"""An engine with a fixed set of batch sizes, each with bound buffers: what CUDA graphs need."""

import logging
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import onnxruntime as ort

from convserve_bundle.contract import INPUT, OUTPUT
from convserve_server.engines.base import NOT_MEASURED, Pixels, Probabilities
from convserve_server.engines.batch_sizes import (
    BatchSizes,
    bucket_sizes,
    fitting_sizes,
    seconds_passed,
)
from convserve_server.engines.device_memory import DeviceMemory
from convserve_server.engines.session import SessionEngine

log = logging.getLogger(__name__)

_MIB = 2**20
#: cuDNN chooses its algorithms in the first run, and the graph is captured.
_WARM_RUNS = 2


class CudaGraphEngine(SessionEngine):
    """Rounds batches up to fixed buckets with bound buffers and, on CUDA, one captured graph each.

    A captured graph replays on the addresses it was captured with, so buffers are bound once and
    rewritten, never rebound. There are two sets of buffers: while the device works on the batch in
    one, the next batch is gathered and copied into the other, and the answers of the last are
    copied out. The runs themselves follow each other, since a session with captured
    graphs allows one thread.

    Source: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html

    Args:
        session: of ONNX Runtime.
        provider: its name.
        sizes: how the largest batch is chosen.
        memory: of the device.
    """

    parallel = 2

    def __init__(
        self, session: Any, provider: str, sizes: BatchSizes, memory: DeviceMemory
    ) -> None:
        super().__init__(session, provider, sizes.max_batch)
        self._sizes = sizes
        self._memory = memory
        # The graph annotation -1 turns capturing off, and 0 is the default of runs without one.
        self._graphs = count(1)
        self._running = threading.Lock()
        self._buffer_sets = [
            self._buffer_set(bucket_sizes(sizes.max_batch)) for _ in range(self.parallel)
        ]
        self._free: queue.SimpleQueue[_BufferSet] = queue.SimpleQueue()
        for buffers in self._buffer_sets:
            self._free.put(buffers)

    def run(self, images: Sequence[Pixels]) -> Probabilities:
        """See Engine.run."""
        buffers = self._free.get()
        try:
            return buffers.run(images)
        finally:
            self._free.put(buffers)

    def warm_up(self, batch_s: Mapping[int, float] = NOT_MEASURED) -> Mapping[int, float]:
        """Warms the buckets up, chooses the largest, forgets others; see Engine.warm_up."""
        first, *others = self._buffer_sets
        warm: list[int] = []
        fitting = self._fitting(first, warm)
        if not batch_s:
            batch_s = self._sizes.measure(
                lambda rows: first.run([self._nothing(rows)]), fitting, seconds_passed
            )
        largest = self._sizes.largest(batch_s)
        while not warm or warm[-1] < largest:
            if next(fitting, None) is None:
                break
        self.max_batch = max(rows for rows in warm if rows <= largest)
        for buffers in self._buffer_sets:
            buffers.sizes = [rows for rows in buffers.sizes if rows <= self.max_batch]
        for buffers in others:
            for rows in buffers.sizes:
                buffers.warm_up(rows)
        free, total = self._memory.free_and_total()
        log.info("of the device's memory %.0f of %.0f MiB are free", free / _MIB, total / _MIB)
        return batch_s

    def _fitting(self, buffers: "_BufferSet", warm: list[int]) -> Iterator[int]:
        """Warms up bucket after bucket, as long as they fit the memory, and yields each."""
        for rows in fitting_sizes(buffers.warm_up, buffers.sizes):
            warm.append(rows)
            yield rows

    def _nothing(self, rows: int) -> Pixels:
        return np.zeros((rows, *self.image_shape), np.uint8)

    def _buffer_set(self, sizes: list[int]) -> "_BufferSet":
        return _BufferSet(
            self._session,
            self._memory,
            self._running,
            self._graphs,
            sizes,
            self.image_shape,
            self.classes,
        )


class _BufferSet:
    """Buffers on the host and on the device, and a bucket for each batch size on top of them.

    Attributes:
        sizes: of batches, ascending; may be shortened.
    """

    def __init__(
        self,
        session: Any,
        memory: DeviceMemory,
        running: threading.Lock,
        graphs: Iterator[int],
        sizes: list[int],
        image_shape: tuple[int, int, int],
        classes: int,
    ) -> None:
        self.sizes = sizes
        self._session = session
        self._memory = memory
        self._running = running
        most = sizes[-1]
        self._pixels: Pixels = memory.host((most, *image_shape), np.uint8)
        self._rows: Probabilities = memory.host((most, classes), np.float32)
        on_device = partial(ort.OrtValue.ortvalue_from_shape_and_type, device_type=memory.device)
        self._input = on_device(self._pixels.shape, np.uint8)
        self._output = on_device(self._rows.shape, np.float32)
        # Looked up once: asking an array for its address takes as long as copying a small one.
        self._way_in = self._input.data_ptr(), self._pixels.ctypes.data
        self._way_out = self._rows.ctypes.data, self._output.data_ptr()
        self._image_bytes = self._pixels[0].nbytes
        self._row_bytes = self._rows[0].nbytes
        self._buckets = {rows: self._bucket(rows, next(graphs)) for rows in sizes}

    def run(self, images: Sequence[Pixels]) -> Probabilities:
        """Gathers and copies in, runs while nobody else does, copies out; see Engine.run."""
        count = sum(len(slice_) for slice_ in images)
        bucket = self._buckets[next(size for size in self.sizes if size >= count)]
        # Behind the images is what was there before: those rows are computed for nobody.
        np.concatenate(images, out=self._pixels[:count])
        self._memory.copy_in(*self._way_in, count * self._image_bytes)
        with self._running:
            self._session.run_with_iobinding(bucket.binding, bucket.options)
        self._memory.copy_out(*self._way_out, count * self._row_bytes)
        return self._rows[:count].copy()

    def warm_up(self, rows: int) -> None:
        """Runs a bucket often enough that nothing is left to be done for it."""
        for _ in range(_WARM_RUNS):
            self.run([np.zeros((rows, *self._pixels.shape[1:]), np.uint8)])

    def _bucket(self, rows: int, graph: int) -> "_Bucket":
        binding = self._session.io_binding()
        device = (self._memory.device, 0)
        binding.bind_input(
            INPUT, *device, np.uint8, (rows, *self._pixels.shape[1:]), self._input.data_ptr()
        )
        binding.bind_output(
            OUTPUT, *device, np.float32, (rows, self._rows.shape[1]), self._output.data_ptr()
        )
        options = ort.RunOptions()
        if self._memory.device == "cuda":
            options.add_run_config_entry("gpu_graph_id", str(graph))
        return _Bucket(binding, options)


@dataclass(frozen=True)
class _Bucket:
    """What a run of one batch size needs."""

    binding: Any
    options: Any
