"""The command convserve-serve."""

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from convserve_bundle.errors import SigningError
from convserve_server.host.exposure import check_exposure
from convserve_server.host.port import StartError
from convserve_server.host.standard_streams import open_streams, output_checked, print_problem
from convserve_server.logs import configure_logging
from convserve_server.process.keys_file import read_keys_file
from convserve_server.process.scan import trust_of
from convserve_server.process.supervisor import supervise
from convserve_server.process.tls_settings import check_tls
from convserve_server.settings.setting import SettingError
from convserve_server.settings.settings import Settings
from convserve_server.settings.sources import Loaded, load
from convserve_server.transports.choice import choose_front
from convserve_store.errors import StoreUrlError
from convserve_store.location import check_url

log = logging.getLogger(__name__)

#: What is needed for traces.
_TRACING = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.grpc")


def missing_packages(front: str, http: bool = False, metrics: bool = False) -> list[str]:
    """Returns what the workers import and a plain installation, the client, does not have.

    Args:
        front: that serves gRPC.
        http: whether HTTP is served as well.
        metrics: whether there is a port for metrics.
    """
    needed = ["onnxruntime", "uvloop", "grpc_reflection"]
    if front == "native":
        needed.append("pygrpc_native")
    if http:
        needed += ["httptools", "msgspec", "python_multipart"]
    if metrics:
        needed.append("prometheus_client")
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


def check_models(settings: Settings) -> None:
    """Refuses a models folder that is not there, or a URL of object storage that is not one.

    Raises:
        SettingError: Saying what to do.
    """
    if not settings.models.on_store:
        check_folder(Path(settings.models.folder))
        return
    try:
        check_url(settings.models.folder, "models")
    except StoreUrlError as error:
        raise SettingError(str(error)) from error


@contextlib.contextmanager
def folder_of_copies(settings: Settings) -> Iterator[str]:
    """Provides the folder for copies of models on object storage; empty where there are none.

    Raises:
        StartError: There is no folder for temporary files.
    """
    if not settings.models.on_store or settings.models.cache:
        yield settings.models.cache
        return
    try:
        temporary = tempfile.TemporaryDirectory(prefix="convserve-models-")
    except OSError as error:
        raise StartError(
            f"models_cache: expected a folder, or one for temporary files, got {error}"
        ) from error
    with temporary as folder:
        yield folder


def check_traces(url: str) -> None:
    """Refuses traces where what sends them is not installed.

    Args:
        url: of the collector; empty for no traces.

    Raises:
        SettingError: Saying what to do.
    """
    if url and any(map(_is_missing, _TRACING)):
        raise SettingError(
            "traces: expected OpenTelemetry to be installed, got a server without it; run: "
            "pip install 'convserve[tracing]'"
        )


def _is_missing(package: str) -> bool:
    try:
        return find_spec(package) is None
    except ModuleNotFoundError:  # One that it is within.
        return True


def check_keys(settings: Settings) -> None:
    """Refuses a file of keys that is not valid.

    Raises:
        SettingError: Saying what is wrong.
    """
    if settings.security.keys:
        try:
            read_keys_file(Path(settings.security.keys))
        except ValueError as error:
            raise SettingError(str(error)) from error


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
        check_models(settings)
        front, why = choose_front(settings)
        check_keys(settings)
        tls_warnings = check_tls(settings)
        exposed = check_exposure(settings)
        check_traces(settings.telemetry.traces)
    except SettingError as error:
        print_problem(str(error))
        return 2
    missing = missing_packages(
        front, bool(settings.listen.http_port), bool(settings.telemetry.metrics_port)
    )
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
        for line in tls_warnings:
            print_problem(line)
        _print_settings(loaded, front)
        return 0
    configure_logging(settings.log.log_level, settings.log.log_format)
    for variable in loaded.unknown:
        log.warning(_unknown(variable))
    log.info("front %s, %s", front, why)
    for line in tls_warnings:
        log.warning(line)
    for warning in exposed:
        log.warning(warning)
    try:
        with folder_of_copies(settings) as copies:
            chosen = settings.replace(front=front, models_cache=copies)
            return supervise(chosen, signals, partial(_read_again, given, copies))
    except StartError as error:
        print_problem(str(error))
        return 1


def _read_again(arguments: Sequence[str], copies: str) -> Settings:
    """Returns the settings as they are given now.

    Args:
        arguments: Of the command line.
        copies: See folder_of_copies.

    Raises:
        SettingError: One is not valid.
    """
    settings = load(arguments).settings
    for line in check_tls(settings):
        log.warning(line)
    check_traces(settings.telemetry.traces)
    # A temporary folder was chosen at the start.
    cache = settings.models.cache or copies
    return settings.replace(front=choose_front(settings)[0], models_cache=cache)


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
