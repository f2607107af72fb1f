"""JAX as Keras's backend: how it is set up, for GPUs too, and how it says that memory is short.

Source: https://docs.jax.dev/en/latest/gpu_memory_allocation.html,
https://docs.jax.dev/en/latest/_autosummary/jax.default_matmul_precision.html,
https://openxla.org/xla/determinism.
"""

import os
import re
import sys

from convserve_host import cpus

DETERMINISTIC = "--xla_gpu_deterministic_ops"
SHORT_OF_MEMORY = "RESOURCE_EXHAUSTED"


def prepare() -> None:
    """Sets the environment variables that JAX reads when it is imported.

    What the user has set stays.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if DETERMINISTIC not in flags:  # as enable_op_determinism of TensorFlow
        os.environ["XLA_FLAGS"] = f"{flags} {DETERMINISTIC}=true".lstrip()
    # Left alone it takes three quarters of a GPU's memory at once: our nets are small, and a server
    # may be computing on the same GPU.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if threads := cpus.quota_threads():  # it knows nothing of quotas
        os.environ.setdefault("NPROC", str(threads))


def settle() -> None:
    """Sets what JAX lets a program set, and lets it look for GPUs."""
    import jax

    # On GPUs products and convolutions of float32 would be rounded to TensorFloat-32: probabilities
    # would differ from those of the published file by more than sums in another order explain.
    jax.config.update("jax_default_matmul_precision", "highest")  # type: ignore[no-untyped-call]
    jax.devices()


def device() -> str:
    """Returns what JAX computes on: "cpu", or the GPU's name."""
    import jax

    return str(jax.devices()[0].device_kind)


def refused_memory(error: Exception) -> str | None:
    """Returns what an error of JAX says about memory that it did not get; None for any other."""
    loaded = sys.modules.get("jax")  # what is not loaded raises nothing
    if not loaded or not isinstance(error, loaded.errors.JaxRuntimeError):
        return None
    if SHORT_OF_MEMORY not in str(error):
        return None
    # The other lines list what lies in the memory.
    wanted = re.search(r"allocat\w+ [0-9.]+ ?\w+", str(error))
    return wanted[0] if wanted else ""
