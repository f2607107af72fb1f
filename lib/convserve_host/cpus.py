"""How many CPUs this process may use.

TensorFlow, ONNX Runtime and most libraries count the machine's cores; in a container with a limit
they start too many threads, which then spin and are throttled.

Source: https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max),
https://docs.kernel.org/scheduler/sched-bwc.html (cpu.cfs_quota_us of cgroup v1).
"""

import math
import os

from convserve_host import cgroups


def available_cpus() -> float:
    """Returns the CPUs that this process may use: its affinity, or its cgroups' smallest quota."""
    quotas = [_quota(cgroup) for cgroup in cgroups.limiting("cpu")]
    return min([float(_allowed()), *(quota for quota in quotas if quota is not None)])


def available_set() -> list[int]:
    """Returns the CPUs that this process may run on; none where the system hides them (macOS)."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def threads() -> int:
    """Returns how many threads can compute at once, 1 or more; a part of a CPU counts as one."""
    return max(1, math.ceil(available_cpus()))


def quota_threads() -> int | None:
    """Returns `threads()` where a quota is the limit, otherwise None."""
    allowed = threads()
    return allowed if allowed < _allowed() else None


def _allowed() -> int:
    return len(available_set()) or os.cpu_count() or 1


def _quota(cgroup: cgroups.Cgroup) -> float | None:
    """Returns the CPUs that a cgroup may use, None for no limit."""
    if cgroup.version == 2:
        quota, _, period = cgroup.read("cpu.max").partition(" ")
    else:
        quota, period = cgroup.read("cpu.cfs_quota_us"), cgroup.read("cpu.cfs_period_us")
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() else None
