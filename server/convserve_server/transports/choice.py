"""Which transport serves, and why."""

import ipaddress
from importlib.util import find_spec

from convserve_server.settings.setting import SettingError
from convserve_server.settings.settings import Settings

_NATIVE_PACKAGE = "pygrpc_native"


def choose_front(settings: Settings) -> tuple[str, str]:
    """Chooses the transport for the settings: the fast one where it can do all that is asked.

    Returns: its name, grpcio or native, and the reason.

    Raises:
        SettingError: for the native transport and something that it cannot do.
    """
    age_s = settings.listen.max_connection_age_s
    tls = bool(settings.security.tls_cert)
    if settings.listen.front == "native" and age_s:
        raise SettingError(
            f"front: native closes no connections by their age ({age_s:g} "
            "s); leave out max_connection_age_s, or use grpcio"
        )
    if tls and settings.listen.front == "native":
        raise SettingError("front: native has no TLS; use grpcio, or leave out tls_cert")
    if tls and settings.security.tls_clients == "optional" and settings.security.tls_client_ca:
        # grpc's Python has a certificate required, or does not ask for one.
        raise SettingError(
            "tls_clients: expected required, got optional: grpcio cannot ask for a certificate "
            "that may be missing"
        )
    if settings.listen.front != "auto":
        return settings.listen.front, "as set"
    if age_s:
        return "grpcio", "since connections are to be closed by their age"
    if tls:
        return "grpcio", "since the native one has no TLS"
    if find_spec(_NATIVE_PACKAGE) is None:
        return "grpcio", "since pygrpc-native is not installed"
    return "native", "the faster one"


def exposure(front: str, host: str) -> str:
    """Returns a warning about a transport that other machines reach; empty if there is none.

    Args:
        front: its name.
        host: the address that it listens on, or a name.
    """
    if front != "native" or _is_loopback(host):
        return ""
    return (
        f"the native front on {host} reads messages of any size before it refuses them: put a "
        "proxy before it where callers are not trusted, or use --front grpcio"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
