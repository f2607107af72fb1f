"""The command convserve-serve."""

import logging
import os
import sys
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from convserve_bundle.errors import SigningError
from convserve_server.host.port import StartError
from convserve_server.host.standard_streams import open_streams, output_checked, print_problem
from convserve_server.logs import configure_logging
from convserve_server.process.scan import trust_of
from convserve_server.process.supervisor import supervise
from convserve_server.settings.setting import SettingError
from convserve_server.settings.settings import Settings
from convserve_server.settings.sources import Loaded, load
from convserve_server.transports.choice import choose_front, exposure

log = logging.getLogger(__name__)


def missing_packages(front: str, http: bool = False) -> list[str]:
    """Returns what the workers import and a plain installation, the client, does not have.

    Args:
        front: that serves gRPC.
        http: whether HTTP is served as well.
    """
    needed = ["onnxruntime", "uvloop", "grpc_reflection"]
    if front == "native":
        needed.append("pygrpc_native")
    if http:
        needed += ["httptools", "msgspec", "python_multipart"]
    return [name for name in needed if find_spec(name) is None]


def check_folder(models: Path) -> None:
    """Refuses a models folder that is not there; one without models is waited for.

    Raises:
        SettingError: Saying what to do.
    """
    try:
        there = models.is_dir()
    except PermissionError as error:
        raise SettingError(
            f"models: expected a folder that user {os.getuid()} may read, got {models}; let it, or "
            "choose another folder"
        ) from error
    if not there:
        raise SettingError(
            f"models: expected an existing folder, got {models}; create it, or mount the volume "
            "there"
        )


def main(arguments: Sequence[str] | None = None, signals: list[int] | None = None) -> int:
    """Serves until stopped.

    Args:
        arguments: Of the command line, without the program's name; None for those of the process.
        signals: That stop the server and were received before; their handlers add to the list.

    Returns: 0 after a clean stop or a check, 1 after a failure, 2 for settings that are not valid.
    """
    open_streams()
    given = sys.argv[1:] if arguments is None else arguments
    try:
        with output_checked():
            loaded = load(given)
        settings = loaded.settings
        check_folder(Path(settings.models.folder))
        front, why = choose_front(settings)
    except SettingError as error:
        print_problem(str(error))
        return 2
    missing = missing_packages(front, bool(settings.listen.http_port))
    if missing:
        print_problem(
            f"{', '.join(missing)} not installed; run: "
            "pip install 'convserve[serve]' for CPU, or 'convserve[gpu]' for CUDA"
        )
        return 1
    try:
        trust_of(settings)
    except SettingError as error:
        print_problem(str(error))
        return 2
    except SigningError as error:
        print_problem(f"require_signature: {error}")
        return 1
    if loaded.check:
        _print_settings(loaded, front)
        return 0
    configure_logging(settings.log.log_level, settings.log.log_format)
    for variable in loaded.unknown:
        log.warning(_unknown(variable))
    log.info("front %s, %s", front, why)
    if exposed := exposure(front, settings.listen.host):
        log.warning(exposed)
    try:
        return supervise(settings.replace(front=front), signals, partial(_read_again, given))
    except StartError as error:
        print_problem(str(error))
        return 1


def _read_again(arguments: Sequence[str]) -> Settings:
    """Returns the settings as they are given now.

    Raises:
        SettingError: One is not valid.
    """
    settings = load(arguments).settings
    return settings.replace(front=choose_front(settings)[0])


def _print_settings(loaded: Loaded, front: str) -> None:
    from convserve_server.process import effective_settings

    for variable in loaded.unknown:
        print_problem(_unknown(variable))
    effective = effective_settings.effective_settings(loaded, front)
    with output_checked():
        if loaded.check == "json":
            print(effective_settings.as_json(effective, loaded.unknown))
        else:
            print(effective_settings.as_table(effective))


def _unknown(variable: str) -> str:
    return f"the variable {variable} is not a setting and changes nothing"


if __name__ == "__main__":
    sys.exit(main())
