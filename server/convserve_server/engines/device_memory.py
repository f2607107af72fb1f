"""Memory that batches go through on their way to a device and back.

Copies leave the GIL, which those of ONNX Runtime's Python do not: a large batch would keep the
transport waiting for milliseconds.
"""

import ctypes
import math
import weakref
from functools import cache
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]

_TO_DEVICE, _TO_HOST = 1, 2


class DeviceMemory(Protocol):
    """How a device is reached from the host."""

    #: In ONNX Runtime's words.
    device: str

    def host(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Returns an array for copies, of any content."""

    def copy_in(self, device: int, host: int, size: int) -> None:
        """Copies so many bytes from an address of the host to one of the device.

        Raises:
            RuntimeError: if CUDA cannot copy.
        """

    def copy_out(self, host: int, device: int, size: int) -> None:
        """Copies so many bytes from an address of the device to one of the host.

        Raises:
            RuntimeError: if CUDA cannot copy.
        """

    def free_and_total(self) -> tuple[float, float]:
        """Returns the bytes that are free on the device, for all processes, and its size.

        Raises:
            RuntimeError: if CUDA does not answer.
        """


class HostMemory:
    """The CPU as its own device."""

    device = "cpu"

    def host(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """See DeviceMemory.host."""
        return np.empty(shape, dtype)

    def copy_in(self, device: int, host: int, size: int) -> None:
        """See DeviceMemory.copy_in."""
        ctypes.memmove(device, host, size)

    def copy_out(self, host: int, device: int, size: int) -> None:
        """See DeviceMemory.copy_out."""
        ctypes.memmove(host, device, size)

    def free_and_total(self) -> tuple[float, float]:
        """See DeviceMemory.free_and_total; not separate from the rest of the host's."""
        return math.inf, math.inf


class CudaMemory:
    """The first CUDA device, with page-locked memory on the host: copies go at the bus's speed.

    Source: https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__MEMORY.html

    Raises:
        OSError: the library of CUDA's runtime that ONNX Runtime was made for is not there.
    """

    device = "cuda"

    def __init__(self) -> None:
        # ONNX Runtime has loaded it by now, wherever it lies; the loader finds it by its name.
        self._runtime = ctypes.CDLL(f"libcudart.so.{ort.cuda_version.partition('.')[0]}")
        for name in ("cudaMemcpy", "cudaHostAlloc", "cudaFreeHost", "cudaMemGetInfo"):
            getattr(self._runtime, name).restype = ctypes.c_int
        self._runtime.cudaGetErrorString.restype = ctypes.c_char_p
        self._runtime.cudaMemcpy.argtypes = [
            ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int,
        ]  # fmt: skip

    def host(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """See DeviceMemory.host.

        Raises:
            MemoryError: there is not so much that could be locked.
        """
        size = math.prod(shape) * np.dtype(dtype).itemsize
        address = ctypes.c_void_p()
        status = self._runtime.cudaHostAlloc(
            ctypes.byref(address), ctypes.c_size_t(size), ctypes.c_uint(0)
        )
        if status or not address.value:
            raise MemoryError(f"{size} bytes of page-locked memory: {self._why(status)}")
        block = (ctypes.c_uint8 * size).from_address(address.value)
        weakref.finalize(block, self._runtime.cudaFreeHost, address)
        return np.ctypeslib.as_array(block).view(dtype).reshape(shape)

    def copy_in(self, device: int, host: int, size: int) -> None:
        """See DeviceMemory.copy_in."""
        self._copy(device, host, size, _TO_DEVICE)

    def copy_out(self, host: int, device: int, size: int) -> None:
        """See DeviceMemory.copy_out."""
        self._copy(host, device, size, _TO_HOST)

    def free_and_total(self) -> tuple[float, float]:
        """See DeviceMemory.free_and_total."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        status = self._runtime.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total))
        if status:
            raise RuntimeError(f"memory of the device: {self._why(status)}")
        return free.value, total.value

    def _copy(self, target: int, source: int, size: int, kind: int) -> None:
        status = self._runtime.cudaMemcpy(target, source, size, kind)
        if status:
            raise RuntimeError(f"copying {size} bytes: {self._why(status)}")

    def _why(self, status: int) -> str:
        text: bytes = self._runtime.cudaGetErrorString(status)
        return f"{text.decode()} (CUDA error {status})"


@cache
def cuda_memory() -> CudaMemory:
    """Returns the one of this process.

    Raises:
        OSError: see CudaMemory.
    """
    return CudaMemory()
