"""The port of metrics of a server: what it shows, and the files that protect it."""

import contextlib
import logging
import platform
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from convserve_server.host.port import StartError, address
from convserve_server.process.server_view import ServerView
from convserve_server.security.file_watch import FileWatch
from convserve_server.security.secrets import Secret
from convserve_server.security.tls import TlsFiles, server_context
from convserve_server.settings.settings import Settings

if TYPE_CHECKING:
    from convserve_server.telemetry.metrics_server import MetricsServer

log = logging.getLogger(__name__)


@contextlib.contextmanager
def metrics_port(settings: Settings, view: ServerView) -> Iterator[None]:
    """Serves metrics as the settings say, as long as the context lasts.

    Args:
        settings: With sizes chosen.
        view: Of the supervisor.

    Raises:
        StartError: The port cannot be had, or a file is not what it should be.
    """
    host, port = settings.telemetry.metrics_host, settings.telemetry.metrics_port
    if not port:
        yield
        return
    # Imported where there is a page: it costs each supervisor some MiB.
    from convserve_server.telemetry.collector import MetricsPage
    from convserve_server.telemetry.metrics_server import MetricsServer

    page = MetricsPage(view.totals, view.state, build_labels(settings), settings_labels(settings))
    try:
        server = MetricsServer(host, port, page.render)
    except OSError as error:
        raise StartError(
            f"cannot listen on {address(host, port)}: {error.strerror}; choose another with "
            "--metrics-host and --metrics-port"
        ) from error
    watches: list[FileWatch] = []
    try:
        for watch in _protect(server, settings):
            watches.append(watch)
        server.start()
        scheme = "http" if server.context is None else "https"
        listening = f"{scheme}://{address(host, port)}/metrics"
        log.info("metrics on %s", listening, extra={"metrics_address": listening})
        yield
    finally:
        for watch in watches:
            watch.close()
        server.close()


def build_labels(settings: Settings) -> dict[str, str]:
    """Returns the labels of convserve_build_info but the provider."""
    return {
        "version": version("convserve"),
        "python": platform.python_version(),
        "onnxruntime": _version_of("onnxruntime", "onnxruntime-gpu"),
        "front": settings.listen.front,
    }


def settings_labels(settings: Settings) -> dict[str, str]:
    """Returns the labels of convserve_settings_info."""
    engine, batching, security = settings.engine, settings.batching, settings.security
    return {
        "workers": str(settings.process.workers),
        "engine_threads": str(engine.engine_threads),
        "decode_threads": str(engine.decode_threads),
        "device": engine.device,
        "max_batch": str(batching.max_batch),
        "max_delay_ms": f"{batching.max_delay_ms:g}",
        "max_queue": str(batching.max_queue),
        "tls": "on" if security.tls_cert else "off",
        "keys": "on" if security.keys else "off",
    }


def _protect(server: "MetricsServer", settings: Settings) -> Iterator[FileWatch]:
    """Sets the key and TLS of the port; yields what reads them again when they change.

    Raises:
        StartError: A file is not what it should be.
    """
    if settings.telemetry.metrics_key_file:
        path = Path(settings.telemetry.metrics_key_file)

        def read_key() -> None:
            server.key = Secret.from_file(path)

        yield _followed("metrics_key_file", [path], read_key)
    security = settings.security
    if security.tls_cert:
        files = TlsFiles(
            cert=Path(security.tls_cert),
            key=Path(security.tls_key),
            client_ca=Path(security.tls_client_ca) if security.tls_client_ca else None,
            clients=cast(Literal["required", "optional"], security.tls_clients),
        )

        def read_tls() -> None:
            server.context = server_context(files, ["http/1.1"])

        yield _followed("tls_cert", files.paths, read_tls)


def _followed(name: str, paths: Sequence[Path], read: Callable[[], None]) -> FileWatch:
    """Reads files, and again when they change.

    Raises:
        StartError: They are not what they should be.
    """
    watch = FileWatch(paths, read)
    try:
        read()
    except (ValueError, OSError) as error:
        raise StartError(f"{name}: {error}") from error
    watch.start()
    return watch


def _version_of(*names: str) -> str:
    """Returns the version of the first package that is installed; empty if none is."""
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            return version(name)
    return ""
