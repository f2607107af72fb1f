"""A port for a server that must be given one."""

import contextlib
import random
import socket

#: Below those that Linux gives to who asks for any, or connects (net.ipv4.ip_local_port_range):
#: nobody has one of these by chance before its server starts.
_PORTS = range(20_000, 30_000)


def free_port() -> int:
    """Returns a port of 127.0.0.1 that nobody uses at the moment.

    Raises:
        OSError: A hundred ports are all in use.
    """
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(f"expected a free port of {_PORTS.start} to {_PORTS.stop - 1}, got none")
