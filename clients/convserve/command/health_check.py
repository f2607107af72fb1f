"""Asks for the health of a server with grpc alone, for a check that is made every few seconds."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from convserve.caller_key import CallerKey
from convserve.channel import open_channel
from convserve.deadline import Deadline
from convserve.health import Health, health_from_error, read_health
from convserve.tls import Tls


def check(
    server: str,
    service: str,
    timeout_s: float,
    tls: Tls | None = None,
    key: CallerKey | None = None,
) -> Health:
    """Asks whether a server, or one service of it, answers calls; as Client.health.

    Args:
        server: HOST:PORT, or another target as for Client.
        service: Name of the service; "": the server as a whole.
        timeout_s: Longest wait for the answer, in seconds.
        tls: How to speak TLS; None: not.
        key: Sent with the call.

    Raises:
        ServerUnavailable: Nobody answers there.
        ConvserveError: See errors.py.
    """
    deadline = Deadline.after(timeout_s)
    if key is not None and tls is None:
        key.warn_in_plain(server)
    with open_channel(server, grpc, tls) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=service),
                timeout=deadline.left_s(),
                metadata=() if key is None else key.metadata(),
            )
        except grpc.RpcError as error:
            return _from_error(error, server, deadline, tls)
    return read_health(reply.status)


def _from_error(error: grpc.RpcError, server: str, deadline: Deadline, tls: Tls | None) -> Health:
    # Here, since the messages of Google's error details are needed for nothing else.
    from convserve.error_mapping import error_from_rpc
    from convserve.tls_failures import Diagnosis, HandshakeFailed

    found = error_from_rpc(error, server, deadline, tls=tls)
    found.__cause__ = error
    if isinstance(found, HandshakeFailed):
        found = Diagnosis(server, tls).explain(found)
    return health_from_error(found)
