"""Where the kernel keeps the limits of this process: its cgroup, and every one above it.

Source: https://docs.kernel.org/admin-guide/cgroup-v2.html,
https://docs.kernel.org/admin-guide/cgroup-v1/cgroups.html.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
SELF = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Place:
    """The folder of a cgroup, and the version that says which files it has: 1 or 2."""

    folder: Path
    version: int

    def read(self, name: str) -> str:
        """The text of one of its files without white space around it, empty if it has none."""
        return read(self.folder / name).strip()


def places(controller: str, cgroup: Path, self_cgroup: Path) -> Iterator[Place]:
    """Our cgroups that may limit what the controller controls, innermost first.

    Args:
        controller: as "cpu" or "memory".
        cgroup: where the file systems of cgroups are mounted.
        self_cgroup: which cgroups we are in, as /proc/self/cgroup says it.
    """
    for line in read(self_cgroup).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, version = cgroup, 2
        elif controller in controllers.split(","):
            root, version = cgroup / controller, 1
        else:
            continue
        # In a container's own namespace the path may not be mounted: then the root is ours.
        ours = root / path.lstrip("/")
        for folder in (ours, *ours.parents):
            if folder.is_relative_to(root):
                yield Place(folder, version)


def read(path: Path) -> str:
    """The text of a file, empty where there is none (another cgroup version, another system)."""
    try:
        return path.read_text()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return ""
