"""Which transport serves, and why."""

from importlib.util import find_spec

from convserve_server.settings.settings import Settings

_NATIVE_PACKAGE = "pygrpc_native"


def choose_front(settings: Settings) -> tuple[str, str]:
    """Chooses the transport for the settings: the fast one where it can do all that is asked.

    Returns: its name, grpcio or native, and the reason.
    """
    if settings.listen.front != "auto":
        return settings.listen.front, "as set"
    if find_spec(_NATIVE_PACKAGE) is None:
        return "grpcio", "since pygrpc-native is not installed"
    return "native", "the faster one"
