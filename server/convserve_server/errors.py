"""The errors that a caller can meet, and their one translation to gRPC.

    ServeError
    ├── InvalidRequest        INVALID_ARGUMENT    which field, what it was, what is taken
    │   └── BadImage          INVALID_ARGUMENT    which image of the request, and why
    ├── NotFound              NOT_FOUND           what exists
    ├── NotReady              UNAVAILABLE         loading or draining; retry after
    ├── Unimplemented         UNIMPLEMENTED       what there is
    ├── QueueFull             RESOURCE_EXHAUSTED  retry after
    ├── MessageTooLarge       RESOURCE_EXHAUSTED  the limit; retrying is pointless
    ├── DeadlinePassed        DEADLINE_EXCEEDED   nothing was computed
    ├── Cancelled             CANCELLED           the caller went away
    └── InternalFault         INTERNAL            an id that is in the log

What they repeat of a request may be of any size, and header fields may not: texts are cut here, on
the way out, and nowhere else.

Source: google/rpc/code.proto, google/rpc/error_details.proto; retry push-back:
https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback.
"""

import logging
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Self

from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from convserve_imaging.errors import PictureError

log = logging.getLogger(__name__)

#: Of one text in an error, as it is sent in a header field. A message is in it up to four times, as
#: itself and in the details, and gRPC's clients take 8 KiB of header fields in all.
MOST_TEXT = 1024
#: Of a name that a request asks for, within a text; and of the names that there are.
_MOST_NAME, _MOST_NAMES = 200, 600

Trailers = tuple[tuple[str, str | bytes], ...]

#: Of our reasons in ErrorInfo.
DOMAIN = "convserve"

#: Tells a retrying client when to try again, in ms; -1 for never.
PUSHBACK = "grpc-retry-pushback-ms"


class ServeError(Exception):
    """An error with a gRPC status; str() is the status's message."""

    code: int = code_pb2.UNKNOWN
    #: Seconds after which a retry may succeed; None where it cannot.
    retry_after_s: float | None = None

    def details(self) -> Sequence[Message]:
        """The google.rpc messages that say more, for programs."""
        return ()

    def released(self) -> Self:
        """The same without its traceback and causes, whose frames hold the whole request.

        A front may keep an error until the next garbage collection, and for that megabytes count
        no more than bytes.
        """
        self.__cause__ = self.__context__ = None
        return self.with_traceback(None)


class InvalidRequest(ServeError):
    """A field of the request is not what is taken."""

    code = code_pb2.INVALID_ARGUMENT

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem

    def details(self) -> Sequence[Message]:
        """A BadRequest with the field."""
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=self.field, description=self.problem
        )
        return (error_details_pb2.BadRequest(field_violations=[violation]),)


class BadImage(InvalidRequest):
    """A file of the request cannot be made into pixels.

    Args:
        place: of the file in the request, from 0.
        error: why.
    """

    def __init__(self, place: int, error: PictureError) -> None:
        super().__init__(f"encoded.images[{place}]", str(error))
        # The form that error_details.proto asks for.
        self.reason = error.reason.upper().replace("-", "_")

    def details(self) -> Sequence[Message]:
        """A BadRequest with the field, and an ErrorInfo with the reason."""
        info = error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN)
        return (*super().details(), info)


class NotFound(ServeError):
    """No such model or version is loaded."""

    code = code_pb2.NOT_FOUND

    def __init__(self, kind: str, name: str, message: str) -> None:
        super().__init__(message)
        self._info = error_details_pb2.ResourceInfo(
            resource_type=kind, resource_name=name, description=message
        )

    def details(self) -> Sequence[Message]:
        """A ResourceInfo with what was asked for."""
        return (self._info,)


class Unimplemented(ServeError):
    """There is no such method."""

    code = code_pb2.UNIMPLEMENTED


class NotReady(ServeError):
    """The model is being loaded, or the server is draining."""

    code = code_pb2.UNAVAILABLE
    retry_after_s = 1.0


class QueueFull(ServeError):
    """The queue of the model takes no more; nothing was computed."""

    code = code_pb2.RESOURCE_EXHAUSTED

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class MessageTooLarge(ServeError):
    """The message is over the limit."""

    code = code_pb2.RESOURCE_EXHAUSTED


class DeadlinePassed(ServeError):
    """The deadline passed before the engine took the request."""

    code = code_pb2.DEADLINE_EXCEEDED


class Cancelled(ServeError):
    """The caller cancelled or went away."""

    code = code_pb2.CANCELLED


class InternalFault(ServeError):
    """A fault of ours. The caller gets an id, the log the traceback."""

    code = code_pb2.INTERNAL

    def __init__(self, what: str, cause: BaseException) -> None:
        self.id = uuid.uuid4().hex[:12]
        super().__init__(f"{what} failed; the server's log has more under id {self.id}")
        self.__cause__ = cause
        log.error("%s failed, id %s", what, self.id, exc_info=cause, extra={"fault_id": self.id})


def to_status(error: ServeError) -> status_pb2.Status:
    """The google.rpc.Status of an error: code, message and details, in texts that fit."""
    status = status_pb2.Status(code=error.code, message=fitting(str(error)))
    details = list(error.details())
    if error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromTimedelta(timedelta(seconds=error.retry_after_s))
        details.append(retry)
    for detail in details:
        _fit(detail)
        status.details.add().Pack(detail)
    return status


def to_trailers(error: ServeError) -> Trailers:
    """The trailing metadata of a failed call: details, and for retrying clients when to retry."""
    trailers: list[tuple[str, str | bytes]] = []
    status = to_status(error)
    if status.details:
        trailers.append(("grpc-status-details-bin", status.SerializeToString()))
    if error.retry_after_s is not None:
        trailers.append((PUSHBACK, str(round(error.retry_after_s * 1000))))
    elif error.code == code_pb2.RESOURCE_EXHAUSTED:
        trailers.append((PUSHBACK, "-1"))
    return tuple(trailers)


def fitting(text: str, most: int = MOST_TEXT) -> str:
    """A text, without its middle if it is longer than that in a header field.

    Args:
        text: of any length.
        most: bytes, as gRPC writes it into grpc-message: what is not ASCII takes three for one.
    """
    # Cheap where it is short, as nearly always, and where it is a whole message.
    if 3 * len(text.encode()) <= most or (len(text) <= most and _sent_bytes(text) <= most):
        return text
    half = (most - _sent_bytes("…")) // 2
    head, tail = text[:half], text[-half:]
    while _sent_bytes(head) > half:
        head = head[: len(head) * half // _sent_bytes(head)]
    while _sent_bytes(tail) > half:
        tail = tail[-(len(tail) * half // _sent_bytes(tail)) :]
    return f"{head}…{tail}"


def quoted(name: str) -> str:
    """A name that a request asks for, in quotes, cut to fit into a message."""
    return repr(fitting(name, _MOST_NAME))


def listed(names: Sequence[str]) -> str:
    """The names that there are, as far as they fit into a message, and how many more there are."""
    text, left = "", _MOST_NAMES
    for number, name in enumerate(names):
        cut = fitting(name, _MOST_NAME)
        left -= _sent_bytes(f", {cut}")
        if left < 0:
            return f"{text}, and {len(names) - number} more"
        text += f", {cut}" if text else cut
    return text or "none"


def _sent_bytes(text: str) -> int:
    """Bytes of a text in grpc-message; fronts differ in which of ASCII they encode, beside %."""
    return sum(1 if byte < 0x80 and chr(byte).isalnum() else 3 for byte in text.encode())


def _fit(message: Message) -> None:
    """Cut all texts of a message, and of those in it."""
    for field, value in message.ListFields():
        if isinstance(value, str):
            setattr(message, field.name, fitting(value))
        elif isinstance(value, Message):
            _fit(value)
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for each in value:
                _fit(each)
