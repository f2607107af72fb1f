"""How much processor this process may use.

ONNX Runtime and most libraries count the machine's cores; in a container with a limit that makes
too many threads, which then spin and are throttled.

Source: https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max),
https://docs.kernel.org/scheduler/sched-bwc.html (cpu.cfs_quota_us of cgroup v1).
"""

import os
from pathlib import Path

from convserve_server.host.cgroups import CGROUP, SELF, Place, places


def available_cpus(cgroup: Path = CGROUP, self_cgroup: Path = SELF) -> float:
    """CPUs that this process may use: the smaller of its affinity and its cgroup quota."""
    allowed = len(available_set()) or os.cpu_count() or 1
    quotas = [_quota(place) for place in places("cpu", cgroup, self_cgroup)]
    return min([float(allowed), *(quota for quota in quotas if quota is not None)])


def available_set() -> list[int]:
    """The CPUs that this process may run on; empty where the system does not say (macOS)."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _quota(place: Place) -> float | None:
    """CPUs that the cgroup may use, None for no limit."""
    if place.version == 2:
        quota, _, period = place.read("cpu.max").partition(" ")
    else:
        quota, period = place.read("cpu.cfs_quota_us"), place.read("cpu.cfs_period_us")
    return float(quota) / float(period) if quota not in ("", "max", "-1") and period else None
