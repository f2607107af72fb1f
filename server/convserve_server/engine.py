"""Runs a model: owns the ONNX Runtime session, its threads, buffers and CUDA graphs.

An engine is used by one thread at a time; the batcher sees to that.
"""

import dataclasses
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from convserve_server.neighbours import Neighbours

log = logging.getLogger(__name__)

INPUT, OUTPUT = "pixels", "probabilities"
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"

Pixels = NDArray[np.uint8]
Probabilities = NDArray[np.float32]


#: Longest batch on the CPU, s, by the time of a single image.
_BATCH_S = 0.06


#: Time of a single image from which more threads are worth waking, s.
_DEAR_S = 0.001


class EngineError(Exception):
    """The model or the device cannot be used as asked; str() says why and what to do."""


class Engine(Protocol):
    """What the batcher and the repository know of an engine."""

    provider: str
    #: One image, (H, W, C).
    image_shape: tuple[int, int, int]
    #: Number of classes, K.
    classes: int
    max_batch: int
    #: The metadata of the ONNX file.
    metadata: dict[str, str]

    def run(self, images: Sequence[Pixels]) -> Probabilities:
        """Classify a batch, given as pieces uint8 [n, H, W, C], max_batch images at the most.

        Returns: float32 [sum of n, K], a new array, rows in the order of the images.
        """

    def warm_up(self) -> None:
        """Run every shape once, so that no request pays for allocation, tuning or capture."""


@dataclass(frozen=True)
class EngineOptions:
    """How engines are built; see Settings for the meaning."""

    device: str = "auto"
    threads: int = 1
    max_batch: int = 64


@dataclass(frozen=True)
class Room:
    """What an engine may use on the CPU while no other worker's engine is at work.

    A connection stays with one worker: without this, a lone caller of a dear model would keep one
    CPU busy and leave the others idle.
    """

    threads: int
    #: Where they may run; empty to leave it to the system.
    cpus: frozenset[int]
    neighbours: Neighbours


def check_installation() -> None:
    """Refuse an environment that has both onnxruntime and onnxruntime-gpu.

    Both install the module onnxruntime; which one is imported then depends on the order of
    installation, and half of the files are of the other.

    Raises:
        EngineError: if both are there.
    """
    have = [name for name in ("onnxruntime", "onnxruntime-gpu") if _installed(name)]
    if len(have) > 1:
        raise EngineError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other; "
            "run: pip uninstall -y onnxruntime onnxruntime-gpu, "
            "then: pip install 'convserve[serve]' for CPU, or 'convserve[gpu]' for CUDA"
        )


def choose_provider(device: str) -> str:
    """The execution provider for a device setting.

    Raises:
        EngineError: for device cuda where ONNX Runtime has no CUDA provider.
    """
    if device == "cpu":
        return CPU
    available = ort.get_available_providers()
    if CUDA in available:
        # The CUDA and cuDNN libraries of NVIDIA's packages are not on the loader's path.
        ort.preload_dlls()
        return CUDA
    if device == "cuda":
        raise EngineError(
            f"device cuda: this onnxruntime has only {', '.join(available)}; "
            "install 'convserve[gpu]' in place of 'convserve[serve]'"
        )
    return CPU


def load_engine(model: Path, options: EngineOptions, room: Room | None = None) -> Engine:
    """An engine for a model file, not yet warm.

    Args:
        model: the file.
        options: how it is built.
        room: for more threads on the CPU than its own; None if there are no other workers.

    Raises:
        EngineError: if the file is no usable model, or the device cannot be had.
    """
    provider = choose_provider(options.device)
    try:
        session = _session(model, provider, options)
    except EngineError:
        if options.device == "cuda" or provider == CPU:
            raise
        log.warning("CUDA cannot be used, falling back to the CPU", exc_info=True)
        provider = CPU
        session = _session(model, provider, options)
    if provider == CUDA:
        return BoundEngine(session, provider, options.max_batch)
    if room is None:
        return DirectEngine(session, provider, options.max_batch)
    widen = partial(_wide_session, model, options, room)
    return DirectEngine(session, provider, options.max_batch, room.neighbours, widen)


def _wide_session(model: Path, options: EngineOptions, room: Room) -> Any:
    """A session with threads on all CPUs that the room has; they inherit where they may run."""
    options = dataclasses.replace(options, threads=room.threads)
    if not room.cpus:
        return _session(model, CPU, options)
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, room.cpus)
    try:
        return _session(model, CPU, options)
    finally:
        os.sched_setaffinity(0, own)


def _session(model: Path, provider: str, options: EngineOptions) -> Any:
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    # Threads that spin while idle take the processor from the front, and from a container's quota.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    cuda = {"cudnn_conv_algo_search": "HEURISTIC", "enable_cuda_graph": "1"}
    try:
        session = ort.InferenceSession(
            str(model), settings, providers=[(provider, cuda if provider == CUDA else {})]
        )
    except Exception as error:  # noqa: BLE001 - ONNX Runtime raises its own and std::exceptions
        raise EngineError(f"{model}: {str(error).strip()}") from error
    session.disable_fallback()
    # ONNX Runtime goes on with the CPU, in silence, when a provider does not initialize.
    if session.get_providers()[0] != provider:
        raise EngineError(f"{model}: {provider} did not initialize")
    return session


class _SessionEngine:
    """What both engines share: the session and the shapes it takes."""

    def __init__(self, session: Any, provider: str, max_batch: int) -> None:
        self._session = session
        self.provider = provider
        self.max_batch = max_batch
        self.image_shape = _image_shape(session)
        self.classes = _classes(session)
        self.metadata: dict[str, str] = dict(session.get_modelmeta().custom_metadata_map)

    def _gather(self, images: Sequence[Pixels], rows: int) -> Pixels:
        """The pieces as one array of the given number of rows; rows beyond the pieces are zero."""
        count = sum(len(piece) for piece in images)
        if len(images) == 1 and count == rows:
            return images[0]
        batch = np.zeros((rows, *self.image_shape), np.uint8)
        np.concatenate(images, out=batch[:count])
        return batch


class DirectEngine(_SessionEngine):
    """Runs batches of any size as they come: on the CPU a new shape costs nothing, padding does.

    A batch is kept short enough that what arrives meanwhile need not wait long. On the CPU that
    costs no throughput, since large images gain nothing from company, and saves much memory.

    Args:
        session: of ONNX Runtime.
        provider: its name.
        max_batch: most images in one run.
        neighbours: the other workers' engines, if there are any.
        widen: makes a session with more threads, for a dear model while the neighbours are idle.
    """

    def __init__(
        self,
        session: Any,
        provider: str,
        max_batch: int,
        neighbours: Neighbours | None = None,
        widen: Callable[[], Any] = lambda: None,
    ) -> None:
        super().__init__(session, provider, max_batch)
        self._neighbours = neighbours
        self._widen = widen
        self._wide = session

    def run(self, images: Sequence[Pixels]) -> Probabilities:
        """See Engine.run."""
        batch = self._gather(images, sum(len(piece) for piece in images))
        if self._neighbours is None:
            return self._run(self._session, batch)
        alone = self._neighbours.begin()
        try:
            return self._run(self._wide if alone else self._session, batch)
        finally:
            self._neighbours.end()

    def _run(self, session: Any, batch: Pixels) -> Probabilities:
        output: Probabilities = session.run([OUTPUT], {INPUT: batch})[0]
        return output

    def warm_up(self) -> None:
        """Run one image, choose the largest batch by its time, and run that to size the arena."""
        image = np.zeros((1, *self.image_shape), np.uint8)
        spent_s = []
        for _ in range(3):
            started = time.perf_counter()
            self._run(self._session, image)
            spent_s.append(time.perf_counter() - started)
        # The least: the first run allocates, and others use the machine too.
        while self.max_batch > 1 and self.max_batch * min(spent_s) > _BATCH_S:
            self.max_batch //= 2
        if self._neighbours is not None and min(spent_s) > _DEAR_S:
            self._wide = self._widen()
        for session in (self._session, self._wide):
            self._run(session, np.repeat(image, self.max_batch, axis=0))
            self._run(session, image)


class BoundEngine(_SessionEngine):
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
        return bucket.run(self._gather(images, bucket.rows))[:count]

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


def _image_shape(session: Any) -> tuple[int, int, int]:
    inputs = {value.name: value for value in session.get_inputs()}
    if list(inputs) != [INPUT]:
        raise EngineError(f"the model takes {sorted(inputs)}, not one input named {INPUT}")
    value = inputs[INPUT]
    # Sizes that the file leaves open are names, or None.
    fixed = [isinstance(size, int) for size in value.shape]
    if value.type != "tensor(uint8)" or fixed != [False, True, True, True]:
        raise EngineError(
            f"the input {INPUT} is {value.type} {value.shape}; "
            "taken is uint8 [N, H, W, C] with N alone open"
        )
    height, width, channels = value.shape[1:]
    return height, width, channels


def _classes(session: Any) -> int:
    outputs = {value.name: value for value in session.get_outputs()}
    value = outputs.get(OUTPUT)
    if value is None:
        raise EngineError(f"the model gives {sorted(outputs)}, no output named {OUTPUT}")
    if value.type != "tensor(float)" or [isinstance(s, int) for s in value.shape] != [False, True]:
        raise EngineError(
            f"the output {OUTPUT} is {value.type} {value.shape}; "
            "taken is float32 [N, K] with N alone open"
        )
    classes: int = value.shape[1]
    return classes


def _installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
