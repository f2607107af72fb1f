"""The command convserve-serve."""

import dataclasses
import logging
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from convserve_server.config import SettingError, Settings
from convserve_server.fronts.front_choice import choose_front, exposure
from convserve_server.host.port import StartError
from convserve_server.logs import configure_logging
from convserve_server.standard_streams import open_streams, output_told, tell
from convserve_server.supervisor import supervise

log = logging.getLogger(__name__)


def missing_packages(front: str) -> list[str]:
    """What the workers import and a plain installation, the client, does not have."""
    needed = ["onnxruntime", "uvloop", "grpc_reflection"]
    if front == "native":
        needed.append("pygrpc_native")
    return [name for name in needed if find_spec(name) is None]


def check_folder(models: Path) -> None:
    """Refuse a models folder that is not there; one without models is waited for.

    Raises:
        SettingError: saying what to do.
    """
    try:
        there = models.is_dir()
    except PermissionError as error:
        raise SettingError(
            f"models: user {os.getuid()} may not look at {models}; let it, or choose another folder"
        ) from error
    if not there:
        raise SettingError(
            f"models: {models} is not a folder; create it, or mount the volume there"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until stopped.

    Returns: 0 after a clean stop, 1 after a failure, 2 for settings that are not taken.
    """
    open_streams()
    try:
        with output_told():
            settings = Settings.load(sys.argv[1:] if arguments is None else arguments)
        check_folder(Path(settings.models))
        front, why = choose_front(settings)
    except SettingError as error:
        tell(str(error))
        return 2
    missing = missing_packages(front)
    if missing:
        tell(
            f"{', '.join(missing)} not installed; run: "
            "pip install 'convserve[serve]' for CPU, or 'convserve[gpu]' for CUDA"
        )
        return 1
    configure_logging(settings.log_level, settings.log_format)
    log.info("front %s, %s", front, why)
    if exposed := exposure(front, settings.host):
        log.warning(exposed)
    try:
        return supervise(dataclasses.replace(settings, front=front))
    except StartError as error:
        tell(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
