"""Which front serves, and why."""

from importlib.util import find_spec

from convserve_server.config import SettingError, Settings

_NATIVE_PACKAGE = "pygrpc_native"


def choose_front(settings: Settings) -> tuple[str, str]:
    """The front for the settings: the fast one where it can do all that is asked for.

    Returns: its name, grpcio or native, and the reason.

    Raises:
        SettingError: for the native front and something that it cannot do.
    """
    if settings.front == "native" and settings.max_connection_age_s:
        raise SettingError(
            f"front: native closes no connections by their age ({settings.max_connection_age_s:g} "
            "s); leave out max_connection_age_s, or take grpcio"
        )
    if settings.front != "auto":
        return settings.front, "as set"
    if settings.max_connection_age_s:
        return "grpcio", "since connections are to be closed by their age"
    if find_spec(_NATIVE_PACKAGE) is None:
        return "grpcio", "since pygrpc-native is not installed"
    return "native", "the faster one"
