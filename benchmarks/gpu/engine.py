"""Measures the engine on a GPU: the device alone, and from array to array, by batch size.

    python -m benchmarks.gpu.engine --models models --model mnist

All run the same file. "Device" replays a captured graph on what lies in the device's memory and
waits for its end; PyTorch's is the ceiling, where it is installed. "Array to array" copies pixels
to the device and probabilities back, as serving does, from one thread, and from as many as the
engine takes batches at the same time. The rows of all are checked against the CPU's.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from benchmarks.harness.bundles import Bundle
from benchmarks.harness.command import (
    BenchmarkError,
    add_models_option,
    add_run_options,
    execute,
    new_parser,
    numbers,
    tell,
)
from benchmarks.harness.report import heading, machine, write_json
from benchmarks.harness.table import grid
from convserve_bundle.contract import INPUT, OUTPUT
from convserve_protos.bundle_pb2 import PRECISION_FLOAT16
from convserve_server.engines.base import CUDA, EngineError
from convserve_server.engines.batch_sizes import BatchSizes
from convserve_server.engines.cuda_graphs import CudaGraphEngine
from convserve_server.engines.device_memory import cuda_memory
from convserve_server.engines.loader import EngineOptions, _provider_options, choose_provider

SIZES = [1, 16, 64, 256, 1024]

_PACKAGES = ("convserve", "onnxruntime-gpu")
#: Of one measurement, s.
_SPAN_S = 0.1
#: Beside the CPU's rows: in float32, and with the 10 bits of mantissa of less.
_CLOSE, _ROUNDED = 1e-5, 1e-2
_BASELINE = "device, ours"
#: Numbers of graphs beside those of the engine.
_GRAPHS = 10_000


@dataclass(frozen=True)
class Way:
    """One way of running batches.

    Attributes:
        name: for the table.
        rows: images in a batch.
        run: runs one batch, or one in each thread.
        batches: that a run is.
    """

    name: str
    rows: int
    run: Callable[[], object]
    batches: int = 1


@dataclass(frozen=True)
class Rate:
    """Images a second of one way, once."""

    name: str
    rows: int
    images_per_s: float


class Ours:
    """The engine that serves, with provider options that differ.

    Args:
        bundle: what is run.
        pixels: uint8 [N, H, W, C], the largest batch.
        sizes: of batches.
        changed: provider options beside those of serving.
    """

    def __init__(
        self, bundle: Bundle, pixels: NDArray[np.uint8], sizes: Sequence[int], **changed: str
    ) -> None:
        settings = ort.SessionOptions()
        settings.log_severity_level = 3
        options = {**_provider_options(CUDA, EngineOptions("cuda")), **changed}
        self._session = ort.InferenceSession(
            str(bundle.file), settings, providers=[(CUDA, options)]
        )
        self._sizes = sizes
        self.engine = CudaGraphEngine(self._session, CUDA, BatchSizes(max(sizes)), cuda_memory())
        self._pixels = pixels
        self._pool = ThreadPoolExecutor(self.engine.parallel)
        rounds = options["use_tf32"] == "1"
        for buffers in self.engine._buffer_sets:
            for rows in buffers.sizes:
                buffers.warm_up(rows)
        for rows in sizes:
            _check(self.engine.run([pixels[:rows]]), bundle, pixels[:rows], rounds)

    def device(self, rows: int) -> Callable[[], object]:
        """Replays a bucket on what it was given last."""
        buffers = self.engine._buffer_sets[0]
        bucket = buffers._buckets[rows]
        return lambda: self._session.run_with_iobinding(bucket.binding, bucket.options)

    def pageable(self, rows: int) -> Callable[[], object]:
        """From array to array by ONNX Runtime's own copies, from memory that may be paged out."""
        shapes = (rows, *self.engine.image_shape), (rows, self.engine.classes)
        make = ort.OrtValue.ortvalue_from_shape_and_type
        there, back = make(shapes[0], np.uint8, "cuda"), make(shapes[1], np.float32, "cuda")
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(INPUT, there)
        binding.bind_ortvalue_output(OUTPUT, back)
        options = ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(_GRAPHS + rows))

        def run() -> object:
            there.update_inplace(self._pixels[:rows])
            self._session.run_with_iobinding(binding, options)
            return back.numpy()

        run()
        run()
        return run

    def whole(self, rows: int) -> Callable[[], object]:
        """From array to array."""
        pieces = [self._pixels[:rows]]
        return lambda: self.engine.run(pieces)

    def together(self, rows: int, batches: int) -> Callable[[], object]:
        """From array to array, so many batches one after another in each of the threads."""
        pieces = [self._pixels[:rows]]

        def some(_: int) -> None:
            for _ in range(batches):
                self.engine.run(pieces)

        return lambda: list(self._pool.map(some, range(self.engine.parallel)))


def _check(
    rows: NDArray[np.float32], bundle: Bundle, pixels: NDArray[np.uint8], rounds: bool
) -> None:
    worst = float(np.abs(rows - bundle.probabilities(pixels)).max())
    rounds = rounds or bundle.manifest.precision == PRECISION_FLOAT16
    if worst > (_ROUNDED if rounds else _CLOSE):
        raise BenchmarkError(f"{len(rows)} rows are up to {worst:g} off those of the CPU")


def _ours(bundle: Bundle, pixels: NDArray[np.uint8], sizes: Sequence[int]) -> Iterator[Way]:
    served = Ours(bundle, pixels, sizes)
    others = {
        "device, ours with cuDNN's exhaustive search": Ours(
            bundle, pixels, sizes, cudnn_conv_algo_search="EXHAUSTIVE"
        ),
        "device, ours with NHWC": Ours(bundle, pixels, sizes, prefer_nhwc="1"),
        "device, ours with TensorFloat-32": Ours(bundle, pixels, sizes, use_tf32="1"),
    }
    batches = 16
    for rows in sizes:
        yield Way(_BASELINE, rows, served.device(rows))
        for name, other in others.items():
            yield Way(name, rows, other.device(rows))
        yield Way("array to array, pageable copies", rows, served.pageable(rows))
        yield Way("array to array, one thread", rows, served.whole(rows))
        threads = served.engine.parallel
        together = served.together(rows, batches)
        yield Way(f"array to array, {threads} threads", rows, together, threads * batches)


def _torch(bundle: Bundle, pixels: NDArray[np.uint8], sizes: Sequence[int]) -> Iterator[Way]:
    import torch  # type: ignore[import-not-found]

    from benchmarks.gpu.torch_net import TorchNet

    net = TorchNet(bundle.file)
    for tf32, name in (("0", "device, PyTorch"), ("1", "device, PyTorch with TensorFloat-32")):
        torch.backends.cudnn.allow_tf32 = tf32 == "1"
        torch.backends.cuda.matmul.allow_tf32 = tf32 == "1"
        torch.backends.cudnn.benchmark = True
        for rows in sizes:
            there = torch.tensor(pixels[:rows], device="cuda")
            replay, probabilities = net.captured(there)
            replay()
            found = probabilities.cpu().numpy()
            _check(found, bundle, pixels[:rows], tf32 == "1")
            yield Way(name, rows, replay)


def _rate(way: Way) -> Rate:
    runs, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < _SPAN_S:
        way.run()
        runs += 1
    return Rate(way.name, way.rows, runs * way.batches * way.rows / spent)


def _table(rates: list[Rate], sizes: Sequence[int]) -> str:
    medians = {
        (name, rows): statistics.median(
            one.images_per_s for one in rates if (one.name, one.rows) == (name, rows)
        )
        for name, rows in dict.fromkeys((one.name, one.rows) for one in rates)
    }
    lines = []
    for name in dict.fromkeys(name for name, _ in medians):
        shown = [medians.get((name, rows)) for rows in sizes]
        base = [medians[_BASELINE, rows] for rows in sizes]
        cells = [
            "" if rate is None else f"{rate:,.0f} ({rate / one:.2f})"
            for rate, one in zip(shown, base, strict=True)
        ]
        lines.append((name, *cells))
    header = ("images/s (to the first row), by batch size", *(f"{rows}" for rows in sizes))
    return grid(header, lines, {header[0]})


def device_name() -> str:
    """Name and driver of the GPU."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    output = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    return output.splitlines()[0]


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.gpu.engine", __doc__)
    add_models_option(result)
    result.add_argument("--model", default="mnist", metavar="NAME", help="[default: mnist]")
    result.add_argument(
        "--sizes", type=numbers, default=SIZES, metavar="N,...",
        help="of batches, powers of two, ascending [default: 1,16,64,256,1024]",
    )  # fmt: skip
    add_run_options(result, rounds=5, measured="way and batch size")
    return result


def run(arguments: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
        BenchmarkError: if there is no GPU, or rows are wrong.
    """
    try:
        choose_provider("cuda")
    except EngineError as error:
        raise BenchmarkError(str(error)) from error
    bundle = Bundle.newest(arguments.models, arguments.model)
    sizes = arguments.sizes
    pixels = np.random.default_rng(0).integers(0, 256, (max(sizes), *bundle.shape), np.uint8)
    ways = list(_ours(bundle, pixels, sizes))
    if there := find_spec("torch") is not None:
        ways += _torch(bundle, pixels, sizes)
    rates: list[Rate] = []
    for round_ in range(arguments.rounds):
        rates += [_rate(way) for way in ways]
        tell(f"round {round_ + 1} of {arguments.rounds}")
    on: dict[str, Any] = machine((*_PACKAGES, *(("torch",) if there else ())))
    about = {"model": bundle.model, "gpu": device_name(), "rounds": arguments.rounds}
    details = (about["gpu"], bundle.model, f"rounds: {arguments.rounds}")
    print(heading(on, "everything", details), _table(rates, sizes), sep="\n\n")
    write_json(arguments.json, on, about, rates=rates)


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))
