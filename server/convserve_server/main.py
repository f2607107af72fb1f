"""The command convserve-serve."""

import dataclasses
import logging
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from convserve_server.config import SettingError
from convserve_server.host.port import StartError
from convserve_server.host.standard_streams import open_streams, output_told, tell
from convserve_server.logs import configure_logging
from convserve_server.setting_sources import load
from convserve_server.settings_check import table
from convserve_server.supervisor import supervise
from convserve_server.transports.choice import choose_front, exposure

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


def _unknown(variable: str) -> str:
    return f"the variable {variable} is no setting and changes nothing"


def main(arguments: Sequence[str] | None = None, signals: list[int] | None = None) -> int:
    """Serve until stopped.

    Args:
        arguments: of the command line, without the program's name; None for those of the process.
        signals: that stop the server and were received before; their handlers add to the list.

    Returns: 0 after a clean stop or a check, 1 after a failure, 2 for settings that are not taken.
    """
    open_streams()
    try:
        with output_told():
            loaded = load(sys.argv[1:] if arguments is None else arguments)
        settings = loaded.settings
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
    if loaded.check:
        for variable in loaded.unknown:
            tell(_unknown(variable))
        with output_told():
            print(table(loaded, front))
        return 0
    configure_logging(settings.log_level, settings.log_format)
    for variable in loaded.unknown:
        log.warning(_unknown(variable))
    log.info("front %s, %s", front, why)
    if exposed := exposure(front, settings.host):
        log.warning(exposed)
    try:
        return supervise(dataclasses.replace(settings, front=front), signals)
    except StartError as error:
        tell(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
