"""The port that a server holds for its workers."""

import socket


class StartError(Exception):
    """The server cannot start; str() says why and what to do."""


def address(host: str, port: int) -> str:
    """Returns host and port as one string, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reserve_port(host: str, port: int, flag: str = "--port") -> socket.socket:
    """Returns a socket that holds the port for our workers, and does not listen.

    Args:
        host: To listen on.
        port: To listen on; 0 for a free one.
        flag: By which a user chooses it.

    Raises:
        StartError: The port is in use, or the address is not ours.
    """
    try:
        family, _, _, _, name = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # Another server that shares ports would let us join it in silence: ask without sharing.
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(name)
            name = probe.getsockname()
        holder = socket.socket(family, socket.SOCK_STREAM)
        try:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind(name)
        except OSError:
            holder.close()
            raise
    except OSError as error:
        raise StartError(
            f"cannot listen on {address(host, port)}: {error.strerror}; "
            f"choose another with --host and {flag}{' (0: any free one)' * (flag == '--port')}"
        ) from error
    return holder
