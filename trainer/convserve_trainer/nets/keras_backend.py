"""Keras and its backend, imported when they are needed and without their start-up noise."""

import gc
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Literal, NamedTuple, TypeAlias

from convserve_host import cpus
from convserve_trainer.host import user_cache
from convserve_trainer.nets import jax_backend

Backend: TypeAlias = Literal["tensorflow", "jax"]
BACKENDS: tuple[Backend, ...] = ("tensorflow", "jax")
DEFAULT: Backend = "tensorflow"

NOISE = "|".join(
    (
        "^I[0-9]{4} ",  # information, TensorFlow's lowest level
        "^WARNING: All log messages before absl::InitializeLog",
        "failed call to cuInit",  # there is no GPU
        "^Fontconfig error: No writable cache directories",  # fc-list, which Matplotlib asks
    )
)


class Threads(NamedTuple):
    """How TensorFlow's threads are used.

    Attributes:
        parts: of a batch, computed at the same time.
        each: threads that compute one operation of one part; None for all.
    """

    parts: int = 1
    each: int | None = None


_chosen: Backend | None = None
_threads = Threads()


def choose(backend: Backend) -> None:
    """Says what Keras computes with in this process; the first choice is the only one.

    Raises:
        ModuleNotFoundError: it is not installed.
        RuntimeError: the process has another one.
    """
    global _chosen
    if _chosen not in (None, backend):
        raise RuntimeError(f"Keras is on {_chosen} in this process; {backend} takes another one")
    if find_spec(backend) is None:
        raise ModuleNotFoundError(f"No module named {backend!r}", name=backend)
    _chosen = backend


def chosen() -> Backend:
    """Returns what Keras computes with in this process."""
    return _chosen or DEFAULT


def use(threads: Threads) -> None:
    """Says how threads should be used, before the first `load`; after it, it is decided."""
    global _threads
    if load.cache_info().currsize == 0:
        _threads = threads


def parts() -> int:
    """Returns in how many parts the batches of a training are computed, if its net allows it."""
    return _threads.parts


@cache
def load() -> ModuleType:
    """Returns the module keras, set up as every training of ours needs it.

    The backend is the chosen one, whatever the user's Keras configuration says; operations are
    deterministic, so that a seed decides the weights. Threads are the backend's choice, one a CPU,
    unless a CPU quota leaves less; another number of threads may add up floats in another order.
    """
    backend = chosen()
    choose(backend)
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only; XLA reads it, too
    user_cache.settle_libraries()
    if backend == "jax":
        jax_backend.prepare()
    with _quiet_native_code(), _uncollected():
        import keras

        # With JAX, too: Keras imports it where it sets a seed or saves a net, and then it is noisy.
        import tensorflow

        if backend == "jax":
            tensorflow.config.set_visible_devices([], "GPU")  # the memory of GPUs is JAX's
            jax_backend.settle()
        # TensorFlow knows nothing of quotas.
        if threads := _threads.each or cpus.quota_threads():
            together = _threads.parts if _threads.each else threads
            tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
            tensorflow.config.threading.set_inter_op_parallelism_threads(together)
        tensorflow.config.list_physical_devices()  # looks for a GPU, which it talks about
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    tensorflow.config.experimental.enable_op_determinism()
    loaded: ModuleType = keras
    return loaded


def tensorflow() -> ModuleType:
    """Returns the module tensorflow, set up likewise; with JAX it sees no GPU."""
    load()
    return sys.modules["tensorflow"]


def described() -> str:
    """Returns the backend, its version and what it computes on: "jax 0.10.2 on cpu"."""
    load()
    backend = chosen()
    if backend == "jax":
        device = jax_backend.device()
    else:
        gpus = tensorflow().config.list_physical_devices("GPU")
        device = f"{len(gpus)} GPU" if gpus else "cpu"
    return f"{backend} {importlib.metadata.version(backend)} on {device}"


@contextmanager
def memory_errors() -> Iterator[None]:
    """Makes the backend's complaint that an allocation failed a MemoryError of one line."""
    try:
        yield
    except Exception as error:
        loaded = sys.modules.get("tensorflow")  # what is not loaded raises nothing
        if loaded and isinstance(error, loaded.errors.ResourceExhaustedError):
            # The rest of the line is about devices and kernels.
            wanted = re.search(r"allocating tensor with shape\[\S+\] and type \w+", error.message)
            raise MemoryError(wanted[0] if wanted else "") from error
        if (refused := jax_backend.refused_memory(error)) is not None:
            raise MemoryError(refused) from error
        raise


@contextmanager
def _uncollected() -> Iterator[None]:
    """Lets something be imported without looking for garbage, then or later, in what it makes.

    TensorFlow makes 400,000 objects that stay: to look through them again and again takes a fifth
    of its import, and a quarter of a second of each `clear_session`.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
    gc.freeze()


@contextmanager
def _quiet_native_code() -> Iterator[None]:
    """Keeps lines of NOISE, which C++ writes whatever the log level, off standard error.

    The filter is a process of its own, so that the last words of a crash are still seen.
    """
    grep = shutil.which("grep")
    if grep is None:
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        command = [grep, "--line-buffered", "-v", "-E", NOISE]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=kept) as process:
            assert process.stdin is not None
            os.dup2(process.stdin.fileno(), 2)
            try:
                yield
            finally:
                sys.stderr.flush()
                os.dup2(kept, 2)
    finally:
        os.close(kept)
