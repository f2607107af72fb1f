"""The machine that a training runs on, in words."""

import platform
from pathlib import Path

from convserve_host import cpus
from convserve_trainer.nets import keras_backend

CPUINFO = Path("/proc/cpuinfo")


def described() -> str:
    """Returns processor, how many CPUs may be used, GPUs that TensorFlow sees, and the system."""
    found = keras_backend.tensorflow().config
    gpus = [
        found.experimental.get_device_details(device).get("device_name", device.name)
        for device in found.list_physical_devices("GPU")
    ]
    parts = [
        f"{_processor()}, {cpus.threads()} CPUs",
        f"GPU {', '.join(gpus)}" if gpus else "no GPU",
        f"{platform.system()} {platform.release()}",
    ]
    return "; ".join(parts)


def _processor() -> str:
    if CPUINFO.is_file():
        for line in CPUINFO.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
