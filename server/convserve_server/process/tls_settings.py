"""The settings of TLS: which files they name, and whether these can be used."""

import datetime
import os
from pathlib import Path
from typing import Literal, cast

from convserve_server.security.certificates import warnings_about
from convserve_server.security.tls import TlsFiles, server_context
from convserve_server.settings.setting import SettingError
from convserve_server.settings.settings import Settings


def tls_files(settings: Settings) -> TlsFiles | None:
    """Returns the files that the settings name; None for a server without TLS.

    Raises:
        SettingError: One is named without those that it needs.
    """
    security = settings.security
    for name, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
        if getattr(security, name) and not getattr(security, other):
            raise SettingError(f"{other}: expected a file beside {name}, got none")
    if not security.tls_cert:
        if security.tls_client_ca:
            raise SettingError("tls_cert: expected a file beside tls_client_ca, got none")
        return None
    return TlsFiles(
        cert=Path(security.tls_cert),
        key=Path(security.tls_key),
        client_ca=Path(security.tls_client_ca) if security.tls_client_ca else None,
        clients=cast(Literal["required", "optional"], security.tls_clients),
    )


def check_tls(settings: Settings) -> list[str]:
    """Looks at the files of TLS, if there are any; returns what an operator should mend soon.

    Raises:
        SettingError: One is missing, cannot be read, or is not what it should be.
    """
    files = tls_files(settings)
    if files is None:
        return []
    for name in ("tls_cert", "tls_key", "tls_client_ca"):
        path = getattr(settings.security, name)
        try:
            if path:
                Path(path).read_bytes()
        except OSError as error:
            raise SettingError(
                f"{name}: expected a file that user {os.getuid()} can read, got {path}: "
                f"{error.strerror}"
            ) from error
    try:
        server_context(files, ())
        return warnings_about(files, datetime.datetime.now(datetime.UTC))
    except (ValueError, OSError) as error:
        raise SettingError(str(error)) from error
