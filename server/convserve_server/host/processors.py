"""What computes on this machine, by name: times that were measured on another one say little."""

import platform
from pathlib import Path

_CPUS = Path("/proc/cpuinfo")
_NVIDIA_GPUS = Path("/proc/driver/nvidia/gpus")


def processors(cpus: Path = _CPUS, gpus: Path = _NVIDIA_GPUS) -> str:
    """Returns the models of the CPUs and of NVIDIA's GPUs, as "AMD EPYC 9654, NVIDIA H100".

    Args:
        cpus: what the kernel says of the CPUs.
        gpus: what the driver says of its GPUs, a folder for each.
    """
    names = _values(cpus, "model name") or {platform.machine()}
    files = sorted(gpus.glob("*/information")) if gpus.is_dir() else []
    return ", ".join(sorted(names) + sorted({name for file in files for name in _gpu(file)}))


def _gpu(file: Path) -> set[str]:
    return {f"NVIDIA {name.removeprefix('NVIDIA ')}" for name in _values(file, "Model")}


def _values(file: Path, key: str) -> set[str]:
    """Returns the values of a key in lines "key : value"; none if the file cannot be read."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return set()
    pairs = (line.partition(":") for line in lines)
    return {value.strip() for name, _, value in pairs if name.strip() == key}
