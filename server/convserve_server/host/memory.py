"""How much memory this process may use, and whether the kernel has killed for want of it.

Source: https://docs.kernel.org/admin-guide/cgroup-v2.html (memory.max, memory.events),
https://docs.kernel.org/admin-guide/cgroup-v1/memory.html (memory.limit_in_bytes,
memory.oom_control), proc_meminfo(5).
"""

import math
import re
from pathlib import Path

from convserve_server.host.cgroups import CGROUP, SELF, Place, places, read

MEMINFO = Path("/proc/meminfo")

#: cgroup v1 writes no limit as the most that its counters hold, a little below 2**63.
_NO_LIMIT = 2**62

_TOTAL = re.compile(r"^MemTotal:\s+(\d+) kB$", re.MULTILINE)
_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def memory_limit(cgroup: Path = CGROUP, self_cgroup: Path = SELF, meminfo: Path = MEMINFO) -> float:
    """Bytes that this process and its children may use together; infinite if nothing says.

    The smallest of the limits of our cgroup, of all above it, and of the machine.
    """
    total = _TOTAL.search(read(meminfo))
    limits = [_limit(place) for place in places("memory", cgroup, self_cgroup)]
    return min([int(total[1]) * 1024 if total else math.inf, *limits])


def _limit(place: Place) -> float:
    text = place.read("memory.max" if place.version == 2 else "memory.limit_in_bytes")
    limit = int(text) if text.isdecimal() else math.inf
    return limit if limit < _NO_LIMIT else math.inf


def oom_kills(cgroup: Path = CGROUP, self_cgroup: Path = SELF) -> int:
    """Processes of our cgroup that the kernel has killed for want of memory; 0 if it says none.

    Those above ours also count the kills of others.
    """
    for place in places("memory", cgroup, self_cgroup):
        text = place.read("memory.events" if place.version == 2 else "memory.oom_control")
        if kills := _KILLS.search(text):
            return int(kills[1])
    return 0
