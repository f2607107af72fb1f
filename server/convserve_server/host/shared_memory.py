"""Memory that a supervisor shares with its workers: a file without a name, which they inherit.

It has no name so that nothing that cleans folders takes it away, and no folder has to be there.
"""

import mmap
import os
import tempfile

#: Of a number in it, bytes.
_NUMBER = 8


def create(name: str, size: int) -> int:
    """Returns the descriptor of a new file of zeros, which has no memory where nobody has written.

    Args:
        name: that the system shows for it.
        size: bytes.

    Raises:
        OSError: no memory or descriptor is left.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create(name)
    else:  # macOS
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor


def create_number(name: str) -> int:
    """Returns the descriptor of a new file that holds one number, 0; see shared_number."""
    return create(name, _NUMBER)


def shared_number(descriptor: int) -> "memoryview[int]":
    """Returns a view of the number in a file: index 0 reads and writes it.

    It is aligned, so the processor writes it at once, and whoever reads it sees it before or after.
    """
    return memoryview(shared(descriptor)).cast("Q")


def shared(descriptor: int) -> mmap.mmap:
    """Returns the memory of a file, all of it, as all who have mapped it see it."""
    return mmap.mmap(descriptor, 0)
