"""The limits that the kernel has for this process: its cgroup, and every one above it.

Source: https://docs.kernel.org/admin-guide/cgroup-v2.html,
https://docs.kernel.org/admin-guide/cgroup-v1/cgroups.html.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Where the file systems of cgroups are mounted.
CGROUP = Path("/sys/fs/cgroup")
#: Which cgroups this process is in.
SELF = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Cgroup:
    """A cgroup.

    Attributes:
        folder: That holds its files.
        version: 1 or 2, on which the names of its files depend.
    """

    folder: Path
    version: int

    def read(self, name: str) -> str:
        """Returns the text of one of its files without white space around it, "" if it has none."""
        return read(self.folder / name).strip()


def limiting(controller: str) -> Iterator[Cgroup]:
    """Yields our cgroups that may limit what a controller controls, ours first.

    Args:
        controller: As "cpu" or "memory".
    """
    for line in read(SELF).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, version = CGROUP, 2
        elif controller in controllers.split(","):
            root, version = CGROUP / controller, 1
        else:
            continue
        # In a container's own namespace the path may not be mounted; then the root is our cgroup.
        ours = root / path.lstrip("/")
        for folder in (ours, *ours.parents):
            if folder.is_relative_to(root):
                yield Cgroup(folder, version)


def read(path: Path) -> str:
    """Returns the text of a file, "" where there is none (another cgroup version or system)."""
    try:
        return path.read_text()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return ""
