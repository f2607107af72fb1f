"""What a lock file names; it needs no package."""

import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LOCKS = Path(__file__).parent

#: The locks that users install from: of each extra of the wheel, and of what the images have.
SHIPPED = (
    *("client.txt", "bench.txt", "serve.txt", "serve-signing.txt", "serve-openvino.txt"),
    *("serve-s3.txt", "score.txt", "gpu.txt", "gpu-image.txt", "train.txt", "train-sweep.txt"),
    *("train-s3.txt", "mnist.txt"),
)

_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)(?: ; ([^\\]+?))?(?: \\)?$")


@dataclass(frozen=True)
class Pin:
    """A package of a lock.

    Attributes:
        name: Of it.
        version: Of it.
        marker: Where it is installed; empty for everywhere.
    """

    name: str
    version: str
    marker: str


def pins(lock: str) -> Iterator[Pin]:
    """Yields the packages of a lock file by its name, in its order."""
    for line in (LOCKS / lock).read_text().splitlines():
        if found := _PIN.match(line):
            yield Pin(found[1], found[2], found[3] or "")


def blocks(lock: str) -> Iterator[tuple[Pin, str]]:
    """Yields each package of a lock file with its lines."""
    lines: list[str] = []
    pin = None
    for line in (LOCKS / lock).read_text().splitlines(keepends=True):
        if found := _PIN.match(line.rstrip("\n")):
            if pin:
                yield pin, "".join(lines)
            pin, lines = Pin(found[1], found[2], found[3] or ""), []
        lines.append(line)
    if pin:
        yield pin, "".join(lines)


def canonical(name: str) -> str:
    """Returns a name in the form that is compared.

    Source: https://packaging.python.org/en/latest/specifications/name-normalization/.
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def image_environment() -> dict[str, str]:
    """Returns what markers see in an image: Linux, and the Python of its base."""
    return {
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "platform_machine": platform.machine(),
        "python_version": "3.11",
        "python_full_version": "3.11.0",
        "implementation_name": sys.implementation.name,
        "platform_python_implementation": "CPython",
    }
