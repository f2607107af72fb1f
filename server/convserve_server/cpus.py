"""How much processor and memory this process may use.

ONNX Runtime and most libraries count the machine's cores; in a container with a limit that makes
too many threads, which then spin and are throttled.

Source: https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max),
https://docs.kernel.org/scheduler/sched-bwc.html (cpu.cfs_quota_us of cgroup v1).
"""

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
SELF = Path("/proc/self/cgroup")


def available_cpus(cgroup: Path = CGROUP, self_cgroup: Path = SELF) -> float:
    """CPUs that this process may use: the smaller of its affinity and its cgroup quota."""
    allowed = len(available_set()) or os.cpu_count() or 1
    return min([float(allowed), *_quotas(cgroup, self_cgroup)])


def available_set() -> list[int]:
    """The CPUs that this process may run on; empty where the system does not say (macOS)."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _quotas(cgroup: Path, self_cgroup: Path) -> list[float]:
    """CPU quotas of our cgroup and of every one above it; a limit on any of them binds."""
    quotas = []
    for line in _read(self_cgroup).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            folder, read = cgroup, _quota_v2
        elif "cpu" in controllers.split(","):
            folder, read = cgroup / "cpu", _quota_v1
        else:
            continue
        # In a container's own namespace the path may not be mounted: then the root is ours.
        below = folder / path.lstrip("/")
        for place in {below, *below.parents, folder}:
            if place.is_relative_to(folder) and (quota := read(place)) is not None:
                quotas.append(quota)
    return quotas


def _quota_v2(folder: Path) -> float | None:
    quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
    return float(quota) / float(period) if quota not in ("", "max") else None


def _quota_v1(folder: Path) -> float | None:
    quota = _read(folder / "cpu.cfs_quota_us").strip()
    period = _read(folder / "cpu.cfs_period_us").strip()
    return float(quota) / float(period) if quota not in ("", "-1") and period else None


def _read(path: Path) -> str:
    """The text of a file, empty where there is none (another cgroup version, another system)."""
    try:
        return path.read_text()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return ""
