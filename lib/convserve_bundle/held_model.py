"""A model file and its external data, read into memory once.

What is checked, hashed and loaded is then the same, whoever writes into the folder meanwhile.
"""

import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from convserve_bundle import external_data
from convserve_bundle.errors import BundleError


@dataclass(eq=False)
class HeldModel:
    """The content of a model.

    Attributes:
        path: of the model file, for messages.
        content: of the model file; empty once it was released.
        external: content of each file of external data, by its location.
    """

    path: Path
    content: bytes
    external: Mapping[str, bytes] = field(default_factory=dict)

    def __str__(self) -> str:
        return str(self.path)

    def release(self) -> None:
        """Gives the memory back: no engine is made of it any more."""
        self.content, self.external = b"", {}


#: A model in its file, or held.
Model = Path | HeldModel


def opened(model: Model) -> BinaryIO:
    """Returns a model file, open for reading.

    Raises:
        OSError: It cannot be opened.
    """
    return io.BytesIO(model.content) if isinstance(model, HeldModel) else model.open("rb")


def size_of(file: BinaryIO) -> int:
    """Returns the size of an open file, bytes, and goes to its beginning."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size


def hold(path: Path, most: int) -> HeldModel:
    """Returns what a model file and its external data hold.

    Args:
        path: Of the model file.
        most: Bytes of all of them.

    Raises:
        BundleError: It is not an ONNX file, has data outside its folder, or they are larger.
        OSError: One cannot be read.
    """
    content = _read(path, most)
    left = most - len(content)
    external = {}
    for location in external_data.locations_in(io.BytesIO(content), len(content)):
        external[location] = _read(external_data.file_of(path, location), left)
        left -= len(external[location])
    return HeldModel(path, content, external)


def _read(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        content = file.read(min(most, os.fstat(file.fileno()).st_size) + 1)
    if len(content) > most:
        raise BundleError(f"{path}: expected at most {most} bytes, got more")
    return content


def digest_of(model: str, external: Mapping[str, tuple[int, str] | None]) -> str:
    """Returns the digest of a version: that of its model file, unless it has external data.

    Args:
        model: SHA-256 of the model file, hexadecimal.
        external: Size and SHA-256 of each file of external data by its location; None where there
            is no such file in the folder.
    """
    if not external:
        return model
    whole = hashlib.sha256(model.encode())
    for location, found in sorted(external.items()):
        # With their names and sizes, so that no bytes can pass from one to the other.
        whole.update(f"{location!r} {found}\n".encode())
    return whole.hexdigest()


def digest_of_held(model: HeldModel) -> str:
    """Returns the digest of a version that is held; see digest_of."""
    external = {
        one: (len(content), hashlib.sha256(content).hexdigest())
        for one, content in model.external.items()
    }
    return digest_of(hashlib.sha256(model.content).hexdigest(), external)
