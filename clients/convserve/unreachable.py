"""Messages about a server that cannot be reached: the route tried, and what to try next."""

from __future__ import annotations

from convserve.address import DEFAULT_PORT, endpoints, is_local
from convserve.proxy import proxy_of

_REFUSED = "Connection refused"


def route(server: str) -> str:
    """Returns an address and, if calls to it go through a proxy, which one."""
    proxy = proxy_of(server)
    return server if proxy is None else f"{server} through {proxy}"


def cannot_connect(server: str, reason: str) -> str:
    """Returns the message for a server that no connection could be made to.

    Args:
        server: Its address.
        reason: What the system says: "Connection refused".
    """
    return f"cannot connect to {route(server)}: {reason}{_advice(server, reason)}"


def _advice(server: str, reason: str) -> str:
    found = endpoints(server)
    if proxy_of(server) is not None:
        hosts = ",".join(host for host, _ in found)
        return f"; no_proxy={hosts} connects without it" if hosts else ""
    if reason != _REFUSED or not found:
        return ""
    port = found[0][1]
    option = "" if port == DEFAULT_PORT else f" --port {port}"
    if is_local(server):
        return f"; is the server running? Start it: convserve-serve --models models{option}"
    return (
        "; is the server running there? Start it: convserve-serve --models models --host "
        f"0.0.0.0{option}, with --tls-cert, --keys or --insecure"
    )
