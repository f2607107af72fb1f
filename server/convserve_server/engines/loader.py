"""Runs a model: chooses the device, makes the ONNX Runtime session and the engine that owns it.

An engine is used by as many threads at a time as it says; the batcher sees to that.
"""

import dataclasses
import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib import metadata
from typing import Any

import onnxruntime as ort

from convserve_bundle.errors import BundleError
from convserve_bundle.held_model import HeldModel, Model, opened, size_of
from convserve_bundle.manifest import read_manifest
from convserve_bundle.onnx_metadata import metadata_in
from convserve_protos.bundle_pb2 import (
    PRECISION_BFLOAT16,
    PRECISION_INT8,
    PRECISION_TENSOR_FLOAT_32,
    PRECISION_UNSPECIFIED,
    Precision,
)
from convserve_server.engines import arena, openvino
from convserve_server.engines.any_onnx import AnyOnnxEngine
from convserve_server.engines.base import CPU, CUDA, OPENVINO, Engine, EngineError, TensorEngine
from convserve_server.engines.batch_sizes import BatchSizes
from convserve_server.engines.cpu import CpuEngine, ThreadAllowance
from convserve_server.engines.cuda_graphs import CudaGraphEngine
from convserve_server.engines.device_memory import cuda_memory
from convserve_server.host.engine_activity import EngineActivity
from convserve_server.host.spare_cpus import SpareCpus

log = logging.getLogger(__name__)

#: Maximum batch size where nothing else is asked for, images. Beyond, caches on the CPU lose more
#: than batching saves, and buffers on the device grow for nothing.
_MAX_BATCH = {CPU: 64, OPENVINO: 64, CUDA: 1024}

#: Levels of ONNX Runtime's log.
_ERROR, _FATAL = 3, 4


@dataclass(frozen=True)
class EngineOptions:
    """How engines are built; see the settings.

    Attributes:
        device: auto, cpu or cuda.
        threads: of an engine on the CPU.
        max_batch: maximum batch size, images; 0: as many as are worth while on the device, up to a
            limit.
        batch_s: longest batch on the CPU, s, where max_batch is 0.
        device_bytes: most memory of a model on a CUDA device; 0: no limit.
        precision: of the bundle (see load_engine); of others it is not specified.
        pause: called while an engine is warmed up, after each run that is measured, with its
            seconds.
        graphs: whether CUDA captures graphs.
        engine: auto, onnxruntime or openvino.
        tell: whether it is logged which engine runs a bundle, and why; one worker does.
        quiet: whether ONNX Runtime logs no errors: those of a model that is not a bundle are its
            callers', who have them as answers.
    """

    device: str = "auto"
    threads: int = 1
    max_batch: int = 0
    batch_s: float = 0.06
    device_bytes: int = 0
    precision: Precision.ValueType = PRECISION_UNSPECIFIED
    pause: Callable[[float], None] = lambda _: None
    graphs: bool = True
    engine: str = "auto"
    tell: bool = True
    quiet: bool = False


def check_installation() -> None:
    """Refuses an environment that has both onnxruntime and onnxruntime-gpu.

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
def choose_provider(device: str, engine: str = "auto") -> str:
    """Returns the execution provider for the settings device and engine; a process finds out once.

    With engine auto the provider for the CPU is that of most bundles; see openvino.is_chosen.

    Raises:
        EngineError: for device cuda where CUDA cannot be used, engine openvino where OpenVINO
            cannot, or both.
    """
    if engine == "openvino":
        if device == "cuda":
            raise EngineError("engine: expected auto or onnxruntime with device cuda, got openvino")
        openvino.check()
        return OPENVINO
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


def _cuda_fault() -> str:
    """Returns why CUDA cannot be used although this onnxruntime has it; empty if it can.

    That shows only when a session is made: the driver, CUDA's libraries and cuDNN are loaded then.
    """
    # The CUDA and cuDNN libraries of NVIDIA's packages are not on the loader's path.
    ort.preload_dlls()
    try:
        _session(arena.NOTHING, CUDA, EngineOptions())
        cuda_memory()
    except (EngineError, OSError) as error:
        return (
            f"CUDA does not work here ({error}); it needs a GPU, its driver, CUDA and cuDNN, and a "
            "container the NVIDIA Container Toolkit"
        )
    return ""


def load_engine(
    model: Model, options: EngineOptions, allowance: ThreadAllowance | None = None
) -> Engine:
    """Returns an engine for a model file, not yet warm; for int8 on the CPU, whatever the device.

    Args:
        model: its file, or what that holds.
        options: how it is built.
        allowance: of more threads on the CPU than its own; None if there are no other workers.

    Raises:
        EngineError: if the file is not a usable model, or the device cannot be had.
        BundleError: on CUDA, if the file has no manifest, or is in a precision that is not known.
    """
    provider = choose_provider(options.device, options.engine)
    precision = _precision(model, needed=provider == CUDA)
    options = dataclasses.replace(options, precision=precision)
    # CUDA has no integer kernels for it: it would compute in float32, slower than from float32.
    if provider == CUDA and precision == PRECISION_INT8:
        log.warning(
            "%s runs on the CPU: it is of int8, which is for CPUs; publish it in tf32 or "
            "float16 for CUDA",
            model,
        )
        provider = CPU
    if provider == CUDA and precision == PRECISION_BFLOAT16 and options.tell:
        log.warning("%s is of bfloat16 and computed in float32: that is for CPUs", model)
    made = _Sessions(model, options, allowance)
    if provider == CUDA:
        try:
            session = made.session(CUDA, graphs=True)
        except EngineError as error:
            without = made.without_graphs(error)
            if without is not None:
                return CpuEngine(without, CUDA, made.sizes(CUDA))
        else:
            return CudaGraphEngine(session, CUDA, made.sizes(CUDA), cuda_memory())
    chosen = openvino.is_chosen(options.engine, precision, model, tell=options.tell)
    session, provider = made.on_cpu(OPENVINO if chosen else CPU)
    engine = CpuEngine(session, provider, made.sizes(provider), *made.of_threads(provider))
    engine.spare = made.spare
    return engine


def load_tensor_engine(
    model: Model, options: EngineOptions, allowance: ThreadAllowance | None = None
) -> TensorEngine:
    """Returns an engine for a model file that is not a bundle, not yet warm; not of OpenVINO.

    Args:
        model: its file, or what that holds.
        options: how it is built.
        allowance: of more threads on the CPU than its own; None if there are no other workers.

    Raises:
        EngineError: if the file is not a model that can be served, or the device cannot be had.
    """
    # OpenVINO computes 64-bit integers in 32 bits: its answers are bounded for bundles alone.
    provider = choose_provider("cpu" if options.engine == "openvino" else options.device)
    made = _Sessions(model, dataclasses.replace(options, quiet=True), allowance)
    name = str(model)
    if provider == CUDA:
        try:
            session = made.session(CUDA)
        except EngineError as error:
            made.check_fallback(error)
        else:
            return AnyOnnxEngine(name, session, CUDA, made.sizes(CUDA))
    engine = AnyOnnxEngine(name, made.session(CPU), CPU, made.sizes(CPU), *made.of_threads(CPU))
    engine.spare = made.spare
    return engine


def metadata_of(model: Model) -> dict[str, str]:
    """Returns the metadata of a model, values by key.

    Raises:
        BundleError: it is not a valid ONNX file, or has a key twice.
        OSError: it cannot be read.
    """
    with opened(model) as file:
        return metadata_in(file, size_of(file))


def _precision(model: Model, *, needed: bool) -> Precision.ValueType:
    """Returns the precision of a bundle; none where it is not needed and cannot be read.

    What is wrong with the file is then for ONNX Runtime to name, or for check_manifest.
    """
    try:
        return read_manifest(metadata_of(model)).precision
    except OSError as error:
        raise EngineError(f"{model}: {error.strerror or error}") from error
    except BundleError:
        if needed:
            raise
        return PRECISION_UNSPECIFIED


@dataclass(frozen=True)
class _Sessions:
    """Makes the sessions of one model file.

    Attributes:
        model: its file, or what that holds.
        options: how they are built.
        allowance: of more threads on the CPU than its own.
    """

    model: Model
    options: EngineOptions
    allowance: ThreadAllowance | None

    def session(self, provider: str, *, graphs: bool = False) -> Any:
        """Returns a session; on CUDA with graphs, or without.

        Raises:
            EngineError: see load_engine.
        """
        options = dataclasses.replace(self.options, graphs=graphs)
        return _session(self.model, provider, options)

    def without_graphs(self, error: EngineError) -> Any:
        """Returns a session on CUDA for what cannot have graphs; None to use the CPU.

        Args:
            error: why there is none with graphs.

        Raises:
            EngineError: if there is none either, and the CPU may not be used.
        """
        try:
            session = self.session(CUDA)
        except EngineError as other:
            self.check_fallback(other)
            return None
        log.warning(
            "%s is served without CUDA graphs, which need all of its nodes on the device: %s",
            self.model, error,
        )  # fmt: skip
        return session

    def check_fallback(self, error: EngineError) -> None:
        """Raises an error of CUDA again, unless the CPU may be used in its stead."""
        if self.options.device == "cuda":
            raise error
        log.warning("CUDA cannot be used, falling back to the CPU", exc_info=error)

    def sizes(self, provider: str) -> BatchSizes:
        """Returns how the largest batch is chosen."""
        options = self.options
        return BatchSizes(
            options.max_batch or _MAX_BATCH[provider],
            chosen=options.max_batch > 0,
            longest_s=math.inf if provider == CUDA else options.batch_s,
            pause=options.pause,
        )

    @property
    def spare(self) -> SpareCpus | None:
        """CPUs for more batches of an engine on the CPU; see Engine."""
        return None if self.allowance is None else self.allowance.spare

    def on_cpu(self, provider: str) -> tuple[Any, str]:
        """Returns a session on the CPU, and its provider.

        With engine auto a bundle that OpenVINO refuses is for ONNX Runtime.

        Args:
            provider: CPU or OPENVINO.

        Raises:
            EngineError: see load_engine.
        """
        try:
            return self.session(provider), provider
        except EngineError as error:
            if provider == CPU or self.options.engine == "openvino":
                raise
            log.warning("%s runs on ONNX Runtime, as OpenVINO refuses it: %s", self.model, error)
            return self.session(CPU), CPU

    def of_threads(
        self, provider: str
    ) -> tuple[EngineActivity | None, Callable[[], Any], Callable[[], Any]]:
        """Returns the last arguments of AnySizeEngine, on the CPU."""
        options = self.options
        one_thread = partial(
            _session, self.model, provider, dataclasses.replace(options, threads=1)
        )
        if self.allowance is None:
            return None, lambda: None, one_thread
        many_threads = partial(_many_threads_session, self.model, provider, options, self.allowance)
        return self.allowance.activity, many_threads, one_thread


def _many_threads_session(
    model: Model, provider: str, options: EngineOptions, allowance: ThreadAllowance
) -> Any:
    """Returns a session with threads on the CPUs of the allowance, which they inherit."""
    options = dataclasses.replace(options, threads=allowance.threads)
    if not allowance.cpus:
        return _session(model, provider, options)
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, allowance.cpus)
    try:
        return _session(model, provider, options)
    finally:
        os.sched_setaffinity(0, own)


def _session(model: Model | bytes, provider: str, options: EngineOptions) -> Any:
    settings = ort.SessionOptions()
    settings.log_severity_level = _FATAL if options.quiet else _ERROR
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    # Threads that spin while idle take the CPU from the transport, and from a container's quota.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if provider != CUDA:
        arena.use_shared(settings)
    if provider == OPENVINO:
        provider = openvino.add_to(settings, options.precision, options.threads)
        providers = None
    else:
        providers = [(provider, _provider_options(provider, options))]
    name = "a net that does nothing" if isinstance(model, bytes) else str(model)
    source = _held(model, settings) if isinstance(model, HeldModel) else model
    try:
        session = ort.InferenceSession(source, settings, providers=providers)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime raises its own and std::exceptions
        raise EngineError(f"{name}: {str(error).strip()}") from error
    session.disable_fallback()
    if isinstance(model, HeldModel):
        # It keeps the content for a fallback, which is off now: as much memory as the weights.
        session._model_bytes = None
    # ONNX Runtime goes on with the CPU, in silence, when a provider does not initialize.
    if session.get_providers()[0] != provider:
        raise EngineError(f"{name}: {provider} did not initialize")
    return session


def _held(model: HeldModel, settings: Any) -> bytes:
    """Returns the content of a model file; its external data goes with the settings of a session.

    All of it does: what ONNX Runtime does not find there it would read from a file.
    """
    if model.external:
        if not hasattr(settings, "add_external_initializers_from_files_in_memory"):
            raise EngineError(
                f"{model}: external_data: expected none, as this onnxruntime ({ort.__version__}) "
                "does not take it from memory; signed models with it need a newer one"
            )
        # ONNX Runtime copies them while it makes the session; the model keeps them until then.
        settings.add_external_initializers_from_files_in_memory(
            list(model.external),
            list(model.external.values()),
            list(map(len, model.external.values())),
        )
    return model.content


def _provider_options(provider: str, options: EngineOptions) -> dict[str, str]:
    """Returns the options of an execution provider.

    Source: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html.
    """
    if provider != CUDA:
        return {}
    limit = {"gpu_mem_limit": str(options.device_bytes)} if options.device_bytes else {}
    return {
        # As fast as an exhaustive search for these nets, and each shape starts sooner.
        "cudnn_conv_algo_search": "HEURISTIC",
        # With this a model of which a node would fall to the CPU does not load.
        "enable_cuda_graph": str(int(options.graphs)),
        # A bundle was checked against Keras in its precision: no TensorFloat-32 for others.
        "use_tf32": str(int(options.precision == PRECISION_TENSOR_FLOAT_32)),
        # No more than is asked for: by default the arena doubles.
        "arena_extend_strategy": "kSameAsRequested",
        **limit,
    }


def _installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
