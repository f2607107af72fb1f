"""Memory on the way to a device: by a library of CUDA's that is a stand-in, and on the CPU."""

import ctypes
import gc
from typing import Any

import numpy as np
import pytest

from convserve_server.engines.device_memory import CudaMemory, HostMemory

_OUT_OF_MEMORY = 2


class FakeCudart:
    """The functions of CUDA's runtime, over the host's memory."""

    def __init__(self) -> None:
        self.blocks: dict[int, Any] = {}
        self.status = 0

    def cudaHostAlloc(self, address: Any, size: Any, flags: Any) -> int:  # noqa: N802
        if not self.status:
            block = ctypes.create_string_buffer(size.value)
            address._obj.value = ctypes.addressof(block)
            self.blocks[address._obj.value] = block
        return self.status

    def cudaFreeHost(self, address: Any) -> int:  # noqa: N802
        del self.blocks[address.value]
        return 0

    def cudaMemcpy(self, target: int, source: int, size: int, kind: int) -> int:  # noqa: N802
        if not self.status:
            ctypes.memmove(target, source, size)
        return self.status

    def cudaMemGetInfo(self, free: Any, total: Any) -> int:  # noqa: N802
        free._obj.value, total._obj.value = 3, 7
        return self.status

    def cudaGetErrorString(self, status: int) -> bytes:  # noqa: N802
        return b"out of memory"


@pytest.fixture
def runtime() -> FakeCudart:
    return FakeCudart()


@pytest.fixture
def memory(runtime: FakeCudart) -> CudaMemory:
    memory = CudaMemory.__new__(CudaMemory)
    memory._runtime = runtime  # type: ignore[assignment]
    return memory


def test_page_locked_memory_is_given_back_with_the_last_view(
    memory: CudaMemory, runtime: FakeCudart
) -> None:
    array = memory.host((3, 2, 2), np.float32)
    assert array.shape == (3, 2, 2)
    assert array.dtype == np.float32
    array[:] = np.arange(12).reshape(3, 2, 2)
    view = array[1:]
    del array
    gc.collect()
    assert len(runtime.blocks) == 1
    np.testing.assert_array_equal(view.ravel(), np.arange(4, 12))
    del view
    gc.collect()
    assert not runtime.blocks


def test_no_page_locked_memory_is_an_error_that_says_how_much(
    memory: CudaMemory, runtime: FakeCudart
) -> None:
    runtime.status = _OUT_OF_MEMORY
    with pytest.raises(
        MemoryError, match=r"^40 bytes of page-locked memory: out of memory \(CUDA error 2\)$"
    ):
        memory.host((10,), np.float32)


@pytest.mark.parametrize("kind", ["cuda", "host"])
def test_copies_there_and_back_change_nothing(kind: str, memory: CudaMemory) -> None:
    ways = memory if kind == "cuda" else HostMemory()
    sent, there, back = (ways.host((3, 5), np.float32) for _ in range(3))
    sent[:] = np.arange(15).reshape(3, 5)
    there[:] = back[:] = 0
    ways.copy_in(there.ctypes.data, sent.ctypes.data, sent[:2].nbytes)
    ways.copy_out(back.ctypes.data, there.ctypes.data, sent[:2].nbytes)
    np.testing.assert_array_equal(back, [*sent[:2], np.zeros(5)])


def test_copy_that_fails_says_what_cuda_says(memory: CudaMemory, runtime: FakeCudart) -> None:
    array = memory.host((4,), np.uint8)
    runtime.status = _OUT_OF_MEMORY
    why = r"^copying 4 bytes: out of memory \(CUDA error 2\)$"
    with pytest.raises(RuntimeError, match=why):
        memory.copy_in(array.ctypes.data, array.ctypes.data, 4)
    with pytest.raises(RuntimeError, match=why):
        memory.copy_out(array.ctypes.data, array.ctypes.data, 4)


def test_memory_of_the_device(memory: CudaMemory, runtime: FakeCudart) -> None:
    assert memory.free_and_total() == (3, 7)
    runtime.status = _OUT_OF_MEMORY
    with pytest.raises(RuntimeError, match=r"memory of the device: out of memory"):
        memory.free_and_total()
