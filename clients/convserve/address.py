"""Where a server listens: the forms that an address may have, and whether it is on this machine.

Source: gRPC name resolution, https://github.com/grpc/grpc/blob/master/doc/naming.md
"""

from __future__ import annotations

import re
import socket

from convserve.arguments import shown
from convserve.errors import InvalidRequest

DEFAULT_PORT = 50051
DEFAULT_SERVER = f"localhost:{DEFAULT_PORT}"

EXPECTED = f"HOST:PORT, as {DEFAULT_SERVER}"

_LARGEST_PORT = 65_535

_SCHEME = re.compile(r"(dns|ipv4|ipv6|unix|unix-abstract|vsock|xds):(?:///?)?(.+)", re.DOTALL)
_ENDPOINT = re.compile(r"(?:\[([^\[\]]+)\]|([^\s:/?#@,\[\]]+)):([0-9]{1,5})")

# Names that mean this machine wherever they are looked up: RFC 6761 (6.3), and Debian's /etc/hosts.
_LOCAL_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")
_MAPPED = bytes(10) + b"\xff\xff"  # RFC 4291 (2.5.5.2): an IPv4 address within IPv6.


def validate_server(server: object) -> str:
    """Returns an address that says where to connect.

    gRPC would silently use port 443 where none is named, the last 16 bits of a larger number, and
    the name of a scheme that it does not know for that of a host.

    Args:
        server: HOST:PORT, with an IPv6 address in brackets; "dns:///HOST:PORT"; several addresses,
            "ipv4:HOST:PORT,HOST:PORT" or "ipv6:[HOST]:PORT,[HOST]:PORT"; "unix:PATH" or
            "unix-abstract:NAME"; or "vsock:CID:PORT" and "xds:///NAME", which gRPC alone checks.

    Raises:
        InvalidRequest: It is none of these.
    """
    if not isinstance(server, str):
        raise InvalidRequest.expected("server", EXPECTED, shown(server))
    if not server.isprintable() or not _is_address(server):
        raise InvalidRequest.expected("server", EXPECTED, shown(server) + _advice(server))
    return server


def endpoints(server: str) -> list[tuple[str, int]]:
    """Returns the hosts, without brackets, and ports of an address; none of a unix socket."""
    found = [_ENDPOINT.fullmatch(each) for each in _parts(server)]
    return [(match[1] or match[2], int(match[3])) for match in found if match]


def is_local(server: str) -> bool:
    """Returns whether an address can only be on this machine: a unix socket, or loopback."""
    if server.startswith(("unix:", "unix-abstract:")):
        return True
    hosts = [host for host, _ in endpoints(server)]
    return bool(hosts) and all(map(_is_loopback, hosts))


def _parts(server: str) -> list[str]:
    match = _SCHEME.fullmatch(server)
    if match is None:
        return [server]
    scheme, rest = match.groups()
    if scheme == "dns":
        # What is before a slash is the name server to ask.
        return [rest.rpartition("/")[2]]
    return rest.split(",") if scheme in ("ipv4", "ipv6") else []


def _is_address(server: str) -> bool:
    parts = _parts(server)
    if not parts:
        return True
    found = endpoints(server)
    return len(found) == len(parts) and all(
        0 < port <= _LARGEST_PORT and (":" not in host or _ipv6(host) is not None)
        for host, port in found
    )


def _is_loopback(host: str) -> bool:
    name = host.lower().removesuffix(".")
    if name in _LOCAL_NAMES or name.endswith(".localhost"):
        return True
    address = _ipv4(host) or _ipv6(host)
    if address is None:
        return False
    if address.startswith(_MAPPED):
        address = address[len(_MAPPED) :]
    # The unspecified address, where a server listens on all, connects to this machine.
    if len(address) == 4:
        return address[0] == 127 or not any(address)
    return int.from_bytes(address) in (0, 1)


def _ipv4(host: str) -> bytes | None:
    try:
        return socket.inet_aton(host)
    except (OSError, UnicodeError):
        return None


def _ipv6(host: str) -> bytes | None:
    try:
        return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except (OSError, UnicodeError):
        return None


def _advice(server: str) -> str:
    if "://" in server and not _SCHEME.fullmatch(server):
        return ": gRPC's addresses have no " + server.partition("://")[0] + "://"
    if server.count(":") > 1 and _ipv6(server.rpartition(":")[0]) is not None:
        host, _, port = server.rpartition(":")
        return f": IPv6 addresses have brackets, [{host}]:{port}"
    match = re.search(r":([0-9]+)\Z", server)
    if match and (len(match[1]) > 5 or not 0 < int(match[1]) <= _LARGEST_PORT):
        return f": ports are 1 to {_LARGEST_PORT}"
    return ""
