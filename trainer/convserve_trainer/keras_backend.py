"""Keras on TensorFlow, imported when it is needed and without its start-up noise."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType

from convserve_trainer import limits, matplotlib_cache
from convserve_trainer.step_parts import Threads

NOISE = "|".join(
    (
        "^I[0-9]{4} ",  # information, TensorFlow's lowest level
        "^WARNING: All log messages before absl::InitializeLog",
        "failed call to cuInit",  # there is no GPU
        "^Fontconfig error: No writable cache directories",  # fc-list, which Matplotlib asks
    )
)


_threads = Threads()


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

    TensorFlow is the backend, whatever the user's Keras configuration says, because the export
    goes through it; operations are deterministic, so that a seed decides the weights. Threads are
    TensorFlow's choice, one a CPU, unless a CPU quota leaves less; another number of threads may
    add up floats in another order.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only
    matplotlib_cache.settle()
    with _quiet_native_code():
        import keras
        import tensorflow

        # TensorFlow knows nothing of quotas.
        if threads := _threads.each or limits.quota_threads():
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
    """Returns the module tensorflow, set up likewise."""
    load()
    return sys.modules["tensorflow"]


@contextmanager
def memory_errors() -> Iterator[None]:
    """Makes TensorFlow's complaint that an allocation failed a MemoryError of one line."""
    try:
        yield
    except Exception as error:
        loaded = sys.modules.get("tensorflow")  # what is not loaded raises nothing
        if loaded and isinstance(error, loaded.errors.ResourceExhaustedError):
            # The rest of the line is about devices and kernels.
            wanted = re.search(r"allocating tensor with shape\[\S+\] and type \w+", error.message)
            raise MemoryError(wanted[0] if wanted else "") from error
        raise


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
