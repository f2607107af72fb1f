"""The standard health check of gRPC.

Source: grpc.health.v1, https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

from enum import Enum

from convserve.errors import ConvserveError, ModelNotFound


class Health(Enum):
    """Whether a server, or one service of it, answers calls."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    # The server does not know the service; `Check` says so by NOT_FOUND, `Watch` by this number.
    SERVICE_UNKNOWN = 3


def read_health(status: int) -> Health:
    """Returns the status of a HealthCheckResponse; a number that is not known is UNKNOWN."""
    return Health(status) if status in (1, 2, 3) else Health.UNKNOWN


def health_from_error(error: ConvserveError) -> Health:
    """Returns what a failed check means.

    Raises:
        ConvserveError: It says nothing of the service; the error itself.
    """
    if isinstance(error, ModelNotFound):
        return Health.SERVICE_UNKNOWN
    raise error
