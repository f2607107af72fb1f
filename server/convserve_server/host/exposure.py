"""Which of a server's ports other machines reach, and whether that was meant.

Source: RFC 6890 (addresses of this machine alone), RFC 4291 section 2.5.5.2 (IPv4 within IPv6).
"""

import ipaddress
import socket

from convserve_server.settings.setting import SettingError
from convserve_server.settings.settings import Settings


def is_reached_by_others(host: str) -> bool:
    """Returns whether other machines reach a port on an address, or on a name.

    A name that no address is known of counts as one that they reach.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        return True
    return not all(_is_loopback(str(address[0])) for *_, address in found)


def check_exposure(settings: Settings) -> list[str]:
    """Refuses ports that other machines reach and that nothing protects, unless that is wanted.

    Returns: a warning for each such port that is wanted.

    Raises:
        SettingError: Saying what to do.
    """
    security, telemetry = settings.security, settings.telemetry
    protected = bool(security.tls_cert or security.keys)
    ports = [("host", settings.listen.host, protected, "keys (keys)")]
    if telemetry.metrics_port:
        # The keys of callers are for calls alone.
        protected = bool(security.tls_cert or telemetry.metrics_key_file)
        ports.append(
            ("metrics_host", telemetry.metrics_host, protected, "a key (metrics_key_file)")
        )
    warnings = []
    for name, host, protected, keys in ports:
        if protected or not is_reached_by_others(host):
            continue
        if not security.insecure:
            raise SettingError(
                f"{name}: expected TLS (tls_cert), {keys} or --insecure for an address that other "
                f"machines reach, got {host}"
            )
        warnings.append(
            f"insecure: {name} {host} is reached by other machines, without TLS and without keys: "
            "whoever reaches the port may use it"
        )
    return warnings


def _is_loopback(text: str) -> bool:
    address = ipaddress.ip_address(text)
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
