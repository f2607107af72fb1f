"""The process that hears operators, on a Unix socket that only the owner of the server may open.

    python -m convserve_server.process.admin_host SOCKET

SOCKET is the number of a stream socket to the supervisor, whose first message is the settings; see
process/messages.py. Its end, or SIGTERM, says that the process should stop. No worker does
this, so an operator is answered while all of them are busy.
"""

import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from convserve_server.host.private_socket import PrivateSocket
from convserve_server.logs import configure_logging
from convserve_server.process.link import SupervisorLink
from convserve_server.process.messages import EXIT_CONFIG, CannotStart, Ready, one_line
from convserve_server.process.remote_administration import RemoteAdministration
from convserve_server.process.worker_spec import decode_settings, receive_line
from convserve_server.protocols.admin.service import SERVICE, Admin
from convserve_server.protocols.base import Service
from convserve_server.protocols.health import Health
from convserve_server.protocols.reflection import make_reflection
from convserve_server.protocols.router import Router
from convserve_server.settings.settings import Settings
from convserve_server.transports.base import TransportOptions
from convserve_server.transports.grpcio import GrpcioTransport

log = logging.getLogger(__name__)

#: Longest time until a signal is handled, s.
_SIGNAL_S = 0.2
#: Of a request: names, labels and numbers.
_MAX_MESSAGE_BYTES = 65536
#: To send the last answers, s.
_FLUSH_S = 1.0


class AdminHost:
    """Answers operators until it is stopped.

    Args:
        settings: With the path of the socket.
        administration: Of all workers.

    Raises:
        OSError: The socket cannot be made, or another server listens there.
    """

    def __init__(self, settings: Settings, administration: RemoteAdministration) -> None:
        self._administration = administration
        health = Health(("", SERVICE))
        services: list[Service] = [Admin(administration), health]
        self._router = Router(
            [*services, *make_reflection([service.name for service in services])],
            max_message_bytes=_MAX_MESSAGE_BYTES,
        )
        for service in ("", SERVICE):
            health.set(service, True)
        self._options = TransportOptions(
            host="",
            port=0,
            max_message_bytes=_MAX_MESSAGE_BYTES,
            keepalive_s=settings.listen.keepalive_s,
            max_connection_age_s=0.0,
            reuse_port=False,
        )
        self._transport: GrpcioTransport
        self._socket = PrivateSocket(Path(settings.listen.admin_socket), self._listen)

    def stop(self) -> None:
        """Removes the socket, and answers those that wait that the server stops."""
        self._socket.close()
        self._router.drain()
        self._router.refuse()
        self._administration.close()
        self._router.wait_idle(_FLUSH_S)
        self._transport.flush(_FLUSH_S)

    def _listen(self, path: str) -> None:
        self._transport = GrpcioTransport(self._options, f"unix:{path}")
        self._transport.start(self._router)


def run(settings: Settings, connection: socket.socket) -> int:
    """Answers operators until asked to stop.

    Args:
        settings: Of the server.
        connection: To the supervisor.

    Returns: The exit status.
    """
    stop = threading.Event()
    link = SupervisorLink(connection, on_end=stop.set)
    administration = RemoteAdministration(link)
    link.start(settings.process.heartbeat_s)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    # These reach the whole group; the supervisor decides what they mean.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        host = AdminHost(settings, administration)
    except OSError as error:
        what = f"{error.strerror}, got {error.filename}" if error.filename else error
        link.send(CannotStart(one_line(f"admin_socket: {what}")))
        return EXIT_CONFIG
    log.info("administration on the socket %s", settings.listen.admin_socket)
    link.send(Ready())
    # Again and again: Python runs a handler on this thread; see worker.py.
    while not stop.wait(_SIGNAL_S):
        pass
    host.stop()
    return 0


def main() -> None:
    """Runs the process; its entry point."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    try:
        settings = decode_settings(receive_line(connection))
    except (EOFError, OSError):
        sys.exit(1)
    configure_logging(settings.log.log_level, settings.log.log_format)
    status = run(settings, connection)
    logging.shutdown()
    # Not by way of Python's own exit: threads of the transport may go on.
    os._exit(status)


if __name__ == "__main__":
    main()
