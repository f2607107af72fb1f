"""How many images the engine of a server's only worker has computed; see count_batches."""

import struct
import tempfile
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

_HOOK = Path(__file__).parent / "count_batches"
_SIZE = 16


class Computed(NamedTuple):
    """Since the server started."""

    batches: int
    images: int


class BatchCount:
    """A file that the worker counts in, from entering the context to leaving it."""

    def __enter__(self) -> Self:
        self._file = tempfile.NamedTemporaryFile(prefix="convserve-batches-")  # noqa: SIM115 - closed below
        self._file.write(bytes(_SIZE))
        self._file.flush()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    @property
    def path(self) -> str:
        """Of the file."""
        return self._file.name

    def environ(self, python_path: str) -> dict[str, str]:
        """What the server is given beside our environment; python_path: its PYTHONPATH."""
        return {"PYTHONPATH": f"{_HOOK}:{python_path}", "BENCHMARK_BATCH_COUNT": self.path}


def computed(path: str) -> Computed:
    """Returns what is in such a file."""
    return Computed(*struct.unpack("=qq", Path(path).read_bytes()))
