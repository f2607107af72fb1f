"""`convserve health`: whether a server answers calls."""

from __future__ import annotations

import argparse

from convserve.command.connection_options import key_of, tls_of
from convserve.command.health_check import check
from convserve.command.waiting import Wait
from convserve.errors import ServerUnavailable
from convserve.health import Health


class _NotServing(ServerUnavailable):
    """The server answers that it does not serve, which may change while it is waited for."""

    def __init__(self, status: Health) -> None:
        super().__init__(f"it is {status.name}")
        self.status = status


def health(arguments: argparse.Namespace) -> int:
    """Prints whether the server, or one service or model of it, answers calls.

    Returns:
        0 if it does, 1 if not.

    Raises:
        ConvserveError: The server gave no answer.
    """
    # A model has its health under its name.
    service: str = arguments.model or arguments.service
    tls, key = tls_of(arguments), key_of(arguments)

    def ask() -> Health:
        found = check(arguments.server, service, arguments.timeout, tls, key)
        if found is not Health.SERVING:
            raise _NotServing(found)
        return found

    try:
        status = Wait(arguments.wait, arguments.server).call(ask)
    except _NotServing as error:
        status = error.status
    if arguments.format != "table":
        # Here, since a health check prints one word.
        import json

        print(json.dumps({"service": service, "status": status.name}))
    else:
        print(status.name)
    return 0 if status is Health.SERVING else 1
