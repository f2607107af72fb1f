"""What convserve-serve --check prints: the settings as they would be here, and their origins."""

import dataclasses

from convserve_host.cpus import available_cpus
from convserve_host.memory import memory_limit
from convserve_server.host.sizing import choose_sizes
from convserve_server.setting_sources import Loaded

#: The origin of what is chosen by the CPUs, the memory and the packages that there are.
CHOSEN = "chosen for this machine"


def table(loaded: Loaded, front: str) -> str:
    """Returns a line for each setting: its name, its value and where that comes from.

    Args:
        loaded: The settings as given.
        front: That was chosen.
    """
    given = loaded.settings
    sized = choose_sizes(dataclasses.replace(given, front=front), available_cpus(), memory_limit())
    lines = [("setting", "value", "from")]
    for name, origin in loaded.origins.items():
        value = getattr(sized, name)
        lines.append((name, str(value), origin if value == getattr(given, name) else CHOSEN))
    widths = [max(len(line[column]) for line in lines) for column in (0, 1)]
    return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in lines)
