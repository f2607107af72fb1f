"""How much memory there is to use."""

import os
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def available_bytes() -> int:
    """Returns the memory that is free or can be freed, no more than a container's limit.

    Source: https://docs.kernel.org/filesystems/proc.html (MemAvailable),
    https://docs.kernel.org/admin-guide/cgroup-v2.html (memory.max).
    """
    limits = [int(text) for path in LIMITS if (text := _read(path).strip()).isdecimal()]
    return min([_free(), *limits])


def _free() -> int:
    for line in _read(MEMINFO).splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    # No Linux: half of what is built in is a fair guess.
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
