"""Runs a model: chooses the device, makes the ONNX Runtime session and the engine that owns it.

An engine is used by as many threads at a time as it says; the batcher sees to that.
"""

import dataclasses
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort

from convserve_bundle.contract import INPUT, OUTPUT
from convserve_bundle.manifest import read_manifest
from convserve_protos.bundle_pb2 import PRECISION_INT8, PRECISION_TENSOR_FLOAT_32, Precision
from convserve_server.engines.batch_sizes import bucket_sizes, largest_worthwhile, least_seconds
from convserve_server.engines.bound_engine import BoundEngine
from convserve_server.engines.device_memory import cuda_memory
from convserve_server.engines.session_engine import (
    CPU,
    CUDA,
    EngineError,
    Pixels,
    Probabilities,
    SessionEngine,
)
from convserve_server.host.engine_activity import EngineActivity

log = logging.getLogger(__name__)

#: Most images in one run where nothing else is asked for. Beyond, caches on the CPU lose more than
#: company saves, and buffers on the device grow for nothing.
_MOST = {CPU: 64, CUDA: 1024}

#: Time of a single image from which more threads are worth waking, s.
_DEAR_S = 0.001


class Engine(Protocol):
    """What the batcher and the repository know of an engine."""

    provider: str
    #: One image, (H, W, C).
    image_shape: tuple[int, int, int]
    #: Number of classes, K.
    classes: int
    max_batch: int
    #: Batches that run() takes at the same time, from several threads.
    parallel: int
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
    #: Most images in one run; 0: as many as are worth while on the device, up to a limit.
    max_batch: int = 0
    #: Longest batch on the CPU, s, by the time of a single image.
    batch_s: float = 0.06
    #: Most memory of a model on a CUDA device; 0: no limit.
    device_bytes: int = 0
    #: Whether CUDA may round to TensorFloat-32; the bundle decides (see load_engine).
    tensor_float_32: bool = False


@dataclass(frozen=True)
class Room:
    """What an engine may use on the CPU while no other worker's engine is at work.

    A connection stays with one worker: without this, a lone caller of a dear model would keep one
    CPU busy and leave the others idle.
    """

    threads: int
    #: Where they may run; empty to leave it to the system.
    cpus: frozenset[int]
    neighbours: EngineActivity


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


@cache
def choose_provider(device: str) -> str:
    """The execution provider for a device setting; a process finds out once.

    Raises:
        EngineError: for device cuda where CUDA cannot be used.
    """
    if device == "cpu":
        return CPU
    available = ort.get_available_providers()
    if CUDA not in available:
        if device == "cuda":
            raise EngineError(
                f"device cuda: this onnxruntime has only {', '.join(available)}; "
                "install 'convserve[gpu]' in place of 'convserve[serve]'"
            )
        return CPU
    if fault := _cuda_fault():
        if device == "cuda":
            raise EngineError(f"device cuda: {fault}")
        log.warning("serving on the CPU: %s", fault)
        return CPU
    return CUDA


#: A net that does nothing, as ONNX: y = Identity(x), float32 [1], opset 13, IR 8.
_NOTHING = (
    b'\x08\x08:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01'
    b"\x12\x04\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)


def _cuda_fault() -> str:
    """Why CUDA cannot be used although this onnxruntime has it; empty if it can.

    That shows only when a session is made: the driver, CUDA's libraries and cuDNN are loaded then.
    """
    # The CUDA and cuDNN libraries of NVIDIA's packages are not on the loader's path.
    ort.preload_dlls()
    try:
        _session(_NOTHING, CUDA, EngineOptions())
        cuda_memory()
    except (EngineError, OSError) as error:
        return (
            f"CUDA does not work here ({error}); it needs a GPU, its driver, CUDA and cuDNN, and a "
            "container the NVIDIA Container Toolkit"
        )
    return ""


def load_engine(model: Path, options: EngineOptions, room: Room | None = None) -> Engine:
    """An engine for a model file, not yet warm; for int8 on the CPU, whatever the device.

    Args:
        model: the file.
        options: how it is built.
        room: for more threads on the CPU than its own; None if there are no other workers.

    Raises:
        EngineError: if the file is no usable model, or the device cannot be had.
        BundleError: on CUDA, if the file has no manifest, or is in a precision that is not known.
    """
    provider = choose_provider(options.device)
    if provider == CUDA:
        precision = _precision(model)
        # CUDA has no integer kernels for it: it would compute in float32, slower than from float32.
        if precision == PRECISION_INT8:
            log.warning(
                "%s runs on the CPU: it is of int8, which is for CPUs; publish it in tf32 or "
                "float16 for CUDA",
                model,
            )
            provider = CPU
        tensor_float_32 = precision == PRECISION_TENSOR_FLOAT_32
        options = dataclasses.replace(options, tensor_float_32=tensor_float_32)
    try:
        session = _session(model, provider, options)
    except EngineError:
        if options.device == "cuda" or provider == CPU:
            raise
        log.warning("CUDA cannot be used, falling back to the CPU", exc_info=True)
        provider = CPU
        session = _session(model, provider, options)
    most = options.max_batch or _MOST[provider]
    if provider == CUDA:
        return BoundEngine(session, provider, most, cuda_memory())
    if room is None:
        return DirectEngine(session, provider, most, options.batch_s)
    widen = partial(_wide_session, model, options, room)
    return DirectEngine(session, provider, most, options.batch_s, room.neighbours, widen)


def _precision(model: Path) -> Precision.ValueType:
    """What a bundle was published in; asked on the CPU, before the device has a session."""
    metadata = _session(model, CPU, EngineOptions()).get_modelmeta().custom_metadata_map
    return read_manifest(metadata).precision


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


def _session(model: Path | bytes, provider: str, options: EngineOptions) -> Any:
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    # Threads that spin while idle take the processor from the front, and from a container's quota.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    name = "a net that does nothing" if isinstance(model, bytes) else str(model)
    try:
        session = ort.InferenceSession(
            model, settings, providers=[(provider, _provider_options(provider, options))]
        )
    except Exception as error:  # noqa: BLE001 - ONNX Runtime raises its own and std::exceptions
        raise EngineError(f"{name}: {str(error).strip()}") from error
    session.disable_fallback()
    # ONNX Runtime goes on with the CPU, in silence, when a provider does not initialize.
    if session.get_providers()[0] != provider:
        raise EngineError(f"{name}: {provider} did not initialize")
    return session


def _provider_options(provider: str, options: EngineOptions) -> dict[str, str]:
    """What is asked of an execution provider.

    Source: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html.
    """
    if provider != CUDA:
        return {}
    limit = {"gpu_mem_limit": str(options.device_bytes)} if options.device_bytes else {}
    return {
        # As fast as an exhaustive search for these nets, and each shape starts sooner.
        "cudnn_conv_algo_search": "HEURISTIC",
        # With this a model of which a node would fall to the CPU does not load.
        "enable_cuda_graph": "1",
        # A bundle was checked against Keras in its precision: no TensorFloat-32 for others.
        "use_tf32": str(int(options.tensor_float_32)),
        # No more than is asked for: by default the arena doubles.
        "arena_extend_strategy": "kSameAsRequested",
        **limit,
    }


class DirectEngine(SessionEngine):
    """Runs batches of any size as they come: on the CPU a new shape costs nothing, padding does.

    A batch is as large as lowers the cost of an image, and no longer than what arrives meanwhile
    may wait. Large images gain next to nothing from company on a CPU, and small batches save
    memory.

    Args:
        session: of ONNX Runtime.
        provider: its name.
        max_batch: most images in one run.
        batch_s: longest run, by the time of a single image.
        neighbours: the other workers' engines, if there are any.
        widen: makes a session with more threads, for a dear model while the neighbours are idle.
    """

    def __init__(
        self,
        session: Any,
        provider: str,
        max_batch: int,
        batch_s: float = EngineOptions.batch_s,
        neighbours: EngineActivity | None = None,
        widen: Callable[[], Any] = lambda: None,
    ) -> None:
        super().__init__(session, provider, max_batch)
        self._batch_s = batch_s
        self._neighbours = neighbours
        self._widen = widen
        self._wide = session

    def run(self, images: Sequence[Pixels]) -> Probabilities:
        """See Engine.run."""
        batch = images[0] if len(images) == 1 else np.concatenate(images)
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
        """Run batches from one image up, choose the largest, and run that to size the arena."""
        image = np.zeros((1, *self.image_shape), np.uint8)

        def run(session: Any, count: int) -> None:
            self._run(session, np.repeat(image, count, axis=0))

        def seconds(count: int) -> float:
            return least_seconds(partial(run, self._session, count))

        self.max_batch = largest_worthwhile(seconds, bucket_sizes(self.max_batch), self._batch_s)
        if self._neighbours is not None and seconds(1) > _DEAR_S:
            self._wide = self._widen()
        for session in (self._session, self._wide):
            run(session, self.max_batch)
            run(session, 1)


def _installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
