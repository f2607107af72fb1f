"""Which names a request may call this server by.

A page of another site can have its own name lead to this machine (DNS rebinding); for the browser
its requests are then of one origin with the server, and only the Host field tells them from ours.
An address there is harmless: a page that was loaded from it is the server's own. Where calls need
a certificate or a key, a page of others has neither.

Sources: RFC 9110 sections 7.2 and 15.5.20, RFC 6761 section 6.3 (localhost).
"""

import ipaddress
import re
from collections.abc import Collection
from functools import lru_cache

from convserve_server.core.errors import listed, quoted
from convserve_server.protocols.rest.messages import HttpRequest, Problem

ANY = "*"

_AUTHORITY = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:]*)(:[0-9]*)?")


def check_host(request: HttpRequest, hosts: Collection[str]) -> None:
    """Refuses a request for a name that is not one of this server.

    Args:
        request: to be answered.
        hosts: in lower case, that are its names beside localhost and all addresses; "*": any.

    Raises:
        Problem: if it is for another one.
    """
    host = request.headers.get("host", "")
    if ANY in hosts or _is_of_any_server(host) or _name(host) in hosts:
        return
    raise Problem(
        421,
        "HOST_REFUSED",
        f"host: expected an address, {listed(sorted({'localhost', *hosts}))} or another name of "
        f"http_hosts, got {quoted(host)}",
    )


@lru_cache(maxsize=256)
def _name(host: str) -> str:
    """Returns the name in a Host field, without its port, in lower case; "?" if there is none."""
    found = _AUTHORITY.fullmatch(host)
    return found[1].lower().removesuffix(".") if found else "?"


@lru_cache(maxsize=256)
def _is_of_any_server(host: str) -> bool:
    """Whether it is an address, a name that always is this machine, or nothing, as of HTTP/1.0."""
    name = _name(host)
    if name in ("", "localhost") or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
