"""Messages of a stream of grpcio, written to a client that may go away at any time."""

import asyncio
from typing import Any

import grpc.aio


async def write(context: Any, message: Any) -> None:
    """Write a message of a stream; returns when the client has made room for it.

    Args:
        context: of the stream's call.
        message: as the handler's serializer takes it.

    Raises:
        CancelledError: if the client has gone. grpcio says so by cancelling the task as well, now
            or soon, and would log the failed write with its traceback.
    """
    try:
        await context.write(message)
    except grpc.aio.InternalError as error:
        raise asyncio.CancelledError from error
