"""Asks for the health of a server with grpc alone, for a check that is made every few seconds."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from convserve.channel import open_channel
from convserve.deadline import Deadline
from convserve.health import Health, health_from_error, read_health


def check(server: str, service: str, timeout_s: float) -> Health:
    """Asks whether a server, or one service of it, answers calls; as Client.health.

    Args:
        server: HOST:PORT, or another target as for Client.
        service: Name of the service; "": the server as a whole.
        timeout_s: Longest wait for the answer, in seconds.

    Raises:
        ServerUnavailable: Nobody answers there.
        ConvserveError: See errors.py.
    """
    deadline = Deadline.after(timeout_s)
    with open_channel(server, grpc.insecure_channel) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=service), timeout=deadline.left_s()
            )
        except grpc.RpcError as error:
            return _from_error(error, server, deadline)
    return read_health(reply.status)


def _from_error(error: grpc.RpcError, server: str, deadline: Deadline) -> Health:
    # Here, since the messages of Google's error details are needed for nothing else.
    from convserve.error_mapping import error_from_rpc

    found = error_from_rpc(error, server, deadline)
    found.__cause__ = error
    return health_from_error(found)
