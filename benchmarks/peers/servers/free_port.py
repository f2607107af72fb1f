"""A port for a server that cannot take any and say which. Runs in every environment."""

import json
import socket


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has at the moment."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port: int = reserved.getsockname()[1]
    return port


def announced_port() -> int:
    """A free port, printed as JSON before the server is there."""
    port = free_port()
    print(json.dumps({"port": port}), flush=True)
    return port
