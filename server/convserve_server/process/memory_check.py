"""Whether there is memory for another model version, before workers load it.

A worker for which there is none is killed by the kernel, with all that it has accepted.
"""

from collections.abc import Callable

from convserve_host.memory import available_bytes
from convserve_server.host.resources import MIB, in_mib

#: Left for requests: a server that is short of memory serves small ones all the same.
_KEPT_BYTES = 16 * MIB
#: Of a model file's size: ONNX Runtime has read it into memory when it copies the weights out of
#: it. Measured: a file of 182 MiB took 363 at most and 187 in the end.
_PEAK_OF_FILE = 2


class MemoryCheck:
    """Compares what a model version needs with what is available.

    Args:
        available: returns the bytes that all processes of the server may still use.
        kept_bytes: that are left for requests.
        held: whether workers hold the content of a file while they load it.
    """

    def __init__(
        self,
        available: Callable[[], int] = available_bytes,
        kept_bytes: int = _KEPT_BYTES,
        *,
        held: bool = False,
    ) -> None:
        self._available = available
        self._kept = kept_bytes
        self._peak = _PEAK_OF_FILE + held

    def refusal_of_first(self, file_bytes: int) -> str:
        """Returns why no worker should load a version; empty if one may.

        Args:
            file_bytes: size of its model file.
        """
        needed = self._peak * file_bytes
        return self._compared(needed, f"to load a model file of {in_mib(file_bytes)}")

    def refusal_of_others(self, file_bytes: int, loaded_bytes: int, workers: int) -> str:
        """Returns why no further worker should load a version; empty if all may.

        Args:
            file_bytes: size of its model file.
            loaded_bytes: by which the first worker has grown.
            workers: that are to load it as well, at the same time.
        """
        needed = workers * (max(loaded_bytes, file_bytes) + (self._peak - 1) * file_bytes)
        if not workers:
            return ""
        return self._compared(needed, f"for {workers} more worker{'s' if workers > 1 else ''}")

    def _compared(self, needed: int, why: str) -> str:
        left = max(0, self._available() - self._kept)
        if needed <= left:
            return ""
        return (
            f"memory: expected {in_mib(needed)} {why}, got {in_mib(left)} beside "
            f"{in_mib(self._kept)} for requests"
        )
