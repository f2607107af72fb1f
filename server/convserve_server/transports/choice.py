"""Which transport serves, and why."""

from importlib.util import find_spec

from convserve_server.settings.setting import SettingError
from convserve_server.settings.settings import Settings

_NATIVE_PACKAGE = "pygrpc_native"


def choose_front(settings: Settings) -> tuple[str, str]:
    """Chooses the transport for the settings: the fast one where it is installed.

    Returns: its name, grpcio or native, and the reason.

    Raises:
        SettingError: for a transport and something that it cannot do.
    """
    front, why = _chosen(settings)
    security = settings.security
    if front == "grpcio" and security.tls_client_ca and security.tls_clients == "optional":
        # grpc's Python has a certificate required, or does not ask for one.
        raise SettingError(
            "tls_clients: expected required, got optional: grpcio cannot ask for a certificate "
            "that may be missing; the native front can"
        )
    return front, why


def _chosen(settings: Settings) -> tuple[str, str]:
    if settings.listen.front != "auto":
        return settings.listen.front, "as set"
    if find_spec(_NATIVE_PACKAGE) is None:
        return "grpcio", "since pygrpc-native is not installed"
    return "native", "the faster one"
