"""How much processor and memory this process may use, and whether the kernel killed for memory.

TensorFlow and most libraries ask for the machine's cores and memory; a container has less.

Source: https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max, memory.max, memory.events),
https://docs.kernel.org/admin-guide/cgroup-v1/memory.html (memory.oom_control),
https://docs.kernel.org/scheduler/sched-bwc.html (cpu.cfs_quota_us of cgroup v1),
https://docs.kernel.org/filesystems/proc.html (MemAvailable).
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
SELF = Path("/proc/self/cgroup")
MEMINFO = Path("/proc/meminfo")
NO_LIMIT = 2**60  # bytes; cgroup v1 says "none" with a number above it


def threads() -> int:
    """Returns how many threads can compute at once, 1 or more."""
    return quota_threads() or _cpus()


def quota_threads() -> int | None:
    """Returns the threads that a CPU quota leaves, rounded up; None where it is not the limit."""
    quotas = [quota for folder in _folders("cpu") if (quota := _quota(folder)) is not None]
    if not quotas:
        return None
    allowed = max(1, math.ceil(min(quotas)))
    return allowed if allowed < _cpus() else None


def memory_limit() -> int | None:
    """Returns the limit of our cgroup or of one above it, bytes; None where there is none."""
    names = ("memory.max", "memory.limit_in_bytes")
    texts = (_read(folder / name).strip() for folder in _folders("memory") for name in names)
    found = min((int(text) for text in texts if text.isdecimal()), default=NO_LIMIT)
    return found if found < NO_LIMIT else None


def available_bytes() -> int:
    """Returns the memory that is free or can be freed, no more than a container's limit."""
    limit = memory_limit()
    return _free() if limit is None else min(_free(), limit)


def out_of_memory_kills() -> int | None:
    """Returns how many processes of our cgroup the kernel has killed for want of memory.

    None where the system does not say.
    """
    for folder in _folders("memory"):  # our own comes first
        for name in ("memory.events", "memory.oom_control"):
            for line in _read(folder / name).splitlines():
                key, _, value = line.partition(" ")
                if key == "oom_kill":
                    return int(value)
    return None


def _folders(controller: str) -> Iterator[Path]:
    """Yields the folders of our cgroup and of every one above it; a limit on any of them binds."""
    for line in _read(SELF).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root = CGROUP
        elif controller in controllers.split(","):
            root = CGROUP / controller
        else:
            continue
        # In a container's own namespace the path may not be mounted: then the root is ours.
        own = root / path.lstrip("/")
        yield from (place for place in (own, *own.parents) if place.is_relative_to(root))


def _quota(folder: Path) -> float | None:
    """Returns the CPUs that a cgroup of either version may use; None for all."""
    quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
    if not quota:
        quota = _read(folder / "cpu.cfs_quota_us").strip()
        period = _read(folder / "cpu.cfs_period_us").strip()
    return int(quota) / int(period) if quota.isdecimal() and period else None


def _cpus() -> int:
    """Returns the CPUs that this process may run on."""
    allowed = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def _free() -> int:
    for line in _read(MEMINFO).splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    # No Linux: half of what is built in is a fair guess.
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _read(path: Path) -> str:
    """Returns the text of a file, nothing where there is none (another version or system)."""
    try:
        return path.read_text()
    except OSError:
        return ""
