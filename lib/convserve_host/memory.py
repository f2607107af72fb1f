"""How much memory this process may use, and whether the kernel has killed for lack of it.

Source: https://docs.kernel.org/admin-guide/cgroup-v2.html (memory.max, memory.current,
memory.stat, memory.events),
https://docs.kernel.org/admin-guide/cgroup-v1/memory.html (memory.limit_in_bytes,
memory.usage_in_bytes, memory.stat, memory.oom_control), proc_meminfo(5), proc_pid_status(5),
proc_pid_statm(5).
"""

import math
import os
import re
from pathlib import Path

from convserve_host import cgroups

MEMINFO = Path("/proc/meminfo")
_STATUS = Path("/proc/self/status")

#: cgroup v1 writes "no limit" as the largest value of its counters, a little below 2**63.
_NO_LIMIT = 2**60

_INACTIVE_FILE = re.compile(r"^(?:total_)?inactive_file (\d+)$", re.MULTILINE)
_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def memory_limit() -> float:
    """Returns the bytes that this process and its children may use; infinite if unlimited.

    The smallest of the limits of our cgroup, of all above it, and of the machine.
    """
    limit = cgroup_limit()
    machine = _of_machine("MemTotal")
    return min(math.inf if limit is None else limit, math.inf if machine is None else machine)


def cgroup_limit() -> int | None:
    """Returns the limit of our cgroup or of one above it, bytes; None where there is none."""
    texts = [
        cgroup.read("memory.max" if cgroup.version == 2 else "memory.limit_in_bytes")
        for cgroup in cgroups.limiting("memory")
    ]
    least = min((int(text) for text in texts if text.isdecimal()), default=_NO_LIMIT)
    return least if least < _NO_LIMIT else None


def available_bytes() -> int:
    """Returns the memory that is free or can be freed, for the machine and within all cgroups."""
    free = _of_machine("MemAvailable")
    if free is None:  # Not Linux: half of the built-in memory is a fair guess.
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return min([free, *(_left(cgroup) for cgroup in cgroups.limiting("memory"))])


def _left(cgroup: cgroups.Cgroup) -> int:
    """Returns what a cgroup may still use, bytes; more than any machine has if it is unlimited."""
    limit = cgroup.read("memory.max" if cgroup.version == 2 else "memory.limit_in_bytes")
    if not limit.isdecimal():
        return _NO_LIMIT
    used = cgroup.read("memory.current" if cgroup.version == 2 else "memory.usage_in_bytes")
    # Pages of files that nobody has used lately: the kernel drops them first.
    # Of version 1 the second number counts the cgroups below as well, as the usage does.
    files = max(map(int, _INACTIVE_FILE.findall(cgroup.read("memory.stat"))), default=0)
    return max(0, int(limit) - max(0, int(used or 0) - files))


def own_bytes() -> int:
    """Returns the memory of this process that belongs to no file; 0 where that is not known."""
    found = re.search(r"^RssAnon:\s+(\d+) kB$", cgroups.read(_STATUS), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def resident_bytes(pid: int) -> int:
    """Returns the resident memory of a process; 0 where that is not known, or it has ended."""
    found = cgroups.read(Path(f"/proc/{pid}/statm")).split()
    return int(found[1]) * os.sysconf("SC_PAGE_SIZE") if found else 0


def oom_kills() -> int | None:
    """Returns how many processes of our cgroup the kernel has killed for lack of memory.

    None where the system does not report it. Cgroups above ours also count the kills of others.
    """
    for cgroup in cgroups.limiting("memory"):
        text = cgroup.read("memory.events" if cgroup.version == 2 else "memory.oom_control")
        if kills := _KILLS.search(text):
            return int(kills[1])
    return None


def _of_machine(name: str) -> int | None:
    """Returns a line of /proc/meminfo, bytes; None where there is none."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", cgroups.read(MEMINFO), re.MULTILINE)
    return int(found[1]) * 1024 if found else None
