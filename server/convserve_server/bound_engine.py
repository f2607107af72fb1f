"""An engine with a fixed set of batch sizes, each with bound buffers: what CUDA graphs need."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from convserve_server.session_engine import (
    CUDA,
    INPUT,
    OUTPUT,
    Pixels,
    Probabilities,
    SessionEngine,
)


class BoundEngine(SessionEngine):
    """Rounds batches up to fixed buckets with bound buffers and, on CUDA, one captured graph each.

    A captured graph replays on the addresses it was captured with, so the buffers of a bucket are
    bound once and rewritten, never rebound.
    """

    def __init__(self, session: Any, provider: str, max_batch: int) -> None:
        super().__init__(session, provider, max_batch)
        self._buckets = [
            _Bucket(session, provider, index + 1, rows, self.image_shape, self.classes)
            for index, rows in enumerate(bucket_sizes(max_batch))
        ]

    def run(self, images: Sequence[Pixels]) -> Probabilities:
        """See Engine.run."""
        count = sum(len(piece) for piece in images)
        bucket = next(bucket for bucket in self._buckets if bucket.rows >= count)
        return bucket.run(self.gather(images, bucket.rows))[:count]

    def warm_up(self) -> None:
        """Run every bucket: cuDNN chooses its algorithms, then the graph is captured."""
        for bucket in self._buckets:
            for _ in range(2):
                bucket.run(np.zeros((bucket.rows, *self.image_shape), np.uint8))


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

    def run(self, batch: Pixels) -> Probabilities:
        self._input.update_inplace(np.ascontiguousarray(batch))
        self._session.run_with_iobinding(self._binding, self._options)
        # numpy() of a CPU value is a view of the bound buffer, which the next run overwrites.
        output: Probabilities = np.array(self._output.numpy(), copy=True)
        return output


def bucket_sizes(max_batch: int) -> list[int]:
    """Powers of two below max_batch, and max_batch."""
    sizes = [1]
    while sizes[-1] < max_batch:
        sizes.append(min(2 * sizes[-1], max_batch))
    return sizes
