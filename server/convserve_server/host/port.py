"""The port that a server holds for its workers."""

import socket

from convserve_server.config import address


class StartError(Exception):
    """The server cannot start; str() says why and what to do."""


def reserve_port(host: str, port: int) -> socket.socket:
    """A socket that holds the port for our workers, and does not listen.

    Raises:
        StartError: if the port is taken or the address is not ours.
    """
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # Another server that shares ports would let us join it in silence: ask without sharing.
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            place = probe.getsockname()
        holder = socket.socket(family, socket.SOCK_STREAM)
        try:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind(place)
        except OSError:
            holder.close()
            raise
    except OSError as error:
        raise StartError(
            f"cannot listen on {address(host, port)}: {error.strerror}; "
            "choose another with --host and --port (0 takes a free one)"
        ) from error
    return holder
