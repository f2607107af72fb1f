"""Which proxy gRPC goes through, by the variables of the environment that it reads.

Source: grpc/grpc, src/core/handshaker/http_connect/http_proxy_mapper.cc, and
https://github.com/grpc/grpc/blob/master/doc/environment_variables.md
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from convserve.address import endpoints, is_local

# The first that is set counts, even if it is empty, which means none.
VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
EXCEPTIONS = ("no_grpc_proxy", "no_proxy")

# Whatever is before an @ are credentials, which no message shows.
_URL = re.compile(r"http://(?:[^/?#]*@)?([^/?#@]+)(?:[/?#].*)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy in use.

    Attributes:
        address: HOST:PORT, without the credentials that its variable may hold.
        variable: The variable that names it.
    """

    address: str
    variable: str

    def __str__(self) -> str:
        return f"the proxy {self.address} ({self.variable})"


def proxy_of(server: str) -> Proxy | None:
    """Returns the proxy that calls to a server go through, or None; none to this machine."""
    if is_local(server):
        return None
    variable = next((name for name in VARIABLES if name in os.environ), None)
    if variable is None:
        return None
    match = _URL.fullmatch(os.environ[variable])
    if match is None or _is_excepted(server):
        return None
    return Proxy(match[1], variable)


def _is_excepted(server: str) -> bool:
    variable = next((name for name in EXCEPTIONS if name in os.environ), None)
    hosts = [host for host, _ in endpoints(server)]
    if variable is None or len(hosts) != 1:
        return False
    entries = [entry.strip() for entry in os.environ[variable].split(",") if entry]
    return any(
        hosts[0].lower().endswith(entry.lower()) or _is_within(hosts[0], entry) for entry in entries
    )


def _is_within(host: str, subnet: str) -> bool:
    if "/" not in subnet:
        return False
    # Here, since a health check has no use for it unless there is a proxy.
    import ipaddress

    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(subnet, strict=False)
    except ValueError:
        return False
