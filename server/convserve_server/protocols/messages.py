"""Messages of protobuf from their bytes, for all services."""

from google.protobuf.message import DecodeError, Message

from convserve_server.core.errors import InvalidRequest


def parse(message: Message, payload: bytes) -> None:
    """Fills a message.

    Raises:
        InvalidRequest: if the bytes are not such a message.
    """
    try:
        message.ParseFromString(payload)
    except DecodeError as error:
        raise InvalidRequest(
            "request",
            f"expected a {message.DESCRIPTOR.full_name}, got {len(payload)} bytes that are not one",
        ) from error
