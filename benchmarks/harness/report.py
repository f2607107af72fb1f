"""What is printed around the figures: the machine and versions that they depend on; JSON."""

import datetime
import json
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convserve_host.cpus import available_cpus

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def machine(packages: Iterable[str]) -> dict[str, str]:
    """Processor, CPUs allowed, system, versions of Python and packages, date (UTC)."""
    return {
        "processor": _processor(),
        "cpus": f"{available_cpus():g}",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _processor() -> str:
    return _cpuinfo("model name") or platform.machine()


def matrix_units() -> str:
    """Returns the flags of this processor that multiplying of matrices depends on."""
    flags = _cpuinfo("flags").split()
    return " ".join(sorted(flag for flag in flags if flag.startswith(("amx", "avx512_"))))


def _cpuinfo(wanted: str) -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == wanted:
            return value.strip()
    return ""


def heading(on: dict[str, str], cpus_for: str, details: Iterable[str]) -> str:
    """The line above a table.

    Args:
        on: from machine().
        cpus_for: what shares the CPUs.
        details: what and how was measured.
    """
    first = ("processor", "cpus", "system", "python", "date")
    versions = ", ".join(f"{name} {value}" for name, value in on.items() if name not in first)
    parts = (
        f"{on['processor']}, {on['cpus']} CPUs for {cpus_for}",
        on["system"],
        f"Python {on['python']}",
        versions,
        *details,
        on["date"],
    )
    return f"{'; '.join(parts)}."


def heading_of_load(on: dict[str, str], run: dict[str, Any]) -> str:
    """The line above a table of servers.

    Args:
        on: from machine().
        run: model, photographs if any, driver, connections, rounds, seconds.
    """
    details = (
        run["model"],
        *([run["photographs"]] if "photographs" in run else []),
        f"{run['driver']} over at most {run['connections']} connections",
        f"rounds x seconds: {run['rounds']} x {run['seconds']:g}",
    )
    return heading(on, "servers and load together", details)


def write_json(
    file: Path | None,
    on: dict[str, str],
    run: dict[str, Any],
    **tables: Sequence["DataclassInstance"],
) -> None:
    """Everything, if there is a file to write it to."""
    if file is None:
        return
    figures = {name: [asdict(row) for row in rows] for name, rows in tables.items()}
    content = {"machine": on, "run": run, **figures}
    file.write_text(json.dumps(content, indent=2) + "\n")
