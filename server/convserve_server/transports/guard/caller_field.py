"""The header field in which a guard tells a worker who calls.

A guard adds it to the fields of each call. Its name is a secret of the server's own processes, made
anew at each start: no client can send it, and a worker refuses calls without it.
"""

from ipaddress import ip_address
from urllib.parse import quote, unquote

from convserve_server.protocols.base import Caller, Failure, Metadata, header_in
from convserve_server.transports.guard.frames import literal

#: Of a call without the field: it comes from another program of this machine, past the guards.
NO_GUARD = Failure(7, "this port is for processes of the server alone", reason="PERMISSION_DENIED")
#: Longest identity, bytes as sent; certificates have names of 64 characters, or addresses.
_MAX_IDENTITY = 1024


def encode(name: str, peer: str, identity: str) -> bytes:
    """Returns the field as HTTP/2 has it.

    Args:
        name: of the field.
        peer: address of the client, as "ipv4:127.0.0.1:51234".
        identity: whom its certificate names; empty without one.
    """
    return literal(name, f"{peer} {quote(identity, safe='')[:_MAX_IDENTITY]}", secret=True)


def peer_of(address: tuple[str, int]) -> str:
    """Returns the address of a client as gRPC writes it."""
    host, port = address[:2]
    ip = ip_address(host.partition("%")[0])
    if ip.version == 6 and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return f"ipv4:{ip}:{port}" if ip.version == 4 else f"ipv6:[{ip}]:{port}"


def caller_of(name: str, peer: str, metadata: Metadata) -> Caller:
    """Returns who calls.

    Args:
        name: of the field; empty if no guard is there.
        peer: by the connection to the worker.
        metadata: of the call, which the caller gets without the field.
    """
    if not name:
        return Caller(peer, metadata)
    value = header_in(metadata, name)
    if not isinstance(value, str):
        return Caller(peer, metadata)
    real, _, identity = value.partition(" ")
    rest = tuple(field for field in metadata if field[0] != name)
    return Caller(real, rest, unquote(identity))
