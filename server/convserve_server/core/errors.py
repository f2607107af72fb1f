"""The errors that a caller can meet. What a protocol makes of them is its own (protocols/).

    ServeError
    ├── InvalidRequest    a field of the request is not what was expected
    │   ├── BadImage      which file of the request, and why
    │   └── NotABundle    the model classifies no images
    ├── NotFound          no such model or version; says what exists
    │   └── NoModel       no such model
    ├── Unauthenticated   no key, or one that is not known
    ├── PermissionDenied  the server does not allow it to this caller
    ├── RateLimited       the caller's key allows no more now; retry after
    │   └── QuotaExceeded the same for today; to retry it soon is pointless
    ├── FailedPrecondition  what an operator asks for is valid and cannot be done as things are
    ├── NotReady          the model is being loaded, or the server is draining; retry after
    ├── Unimplemented     no such method; says what exists
    ├── QueueFull         nothing was computed; retry after
    │   └── CannotMeetDeadline  the same, for there is no time for it; retrying it is pointless
    ├── MessageTooLarge   says the limit; retrying is pointless
    │   └── AnswerTooLarge  the same of what would be sent back
    ├── NoMemoryForRequest  requests that are not whole yet hold too much memory
    ├── RequestTooSlow    the request does not get whole
    ├── AnswersUnread     the client of a stream does not read
    ├── DeadlinePassed    nothing was computed
    ├── Cancelled         the caller went away
    └── InternalFault     a fault of ours, with an id that is in the log

What they repeat of a request may be of any size. Texts are cut where they are made, by quoted() and
listed(), and once more on the way out.
"""

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

from convserve_imaging.errors import PictureError

log = logging.getLogger(__name__)

#: Of a name that a request asks for, within a text, and of all names that exist; bytes as sent.
_MAX_NAME, _MAX_NAMES = 200, 600
#: Of one text in an error, bytes as sent: a message is in a call's header fields up to four times,
#: as itself and in its details, and gRPC's clients accept 8 KiB of header fields in all.
MAX_TEXT = 1024


class ServeError(Exception):
    """An error that is the answer to a call; str() is its message.

    Attributes:
        reason: for programs, as in google.rpc.ErrorInfo: UPPER_SNAKE_CASE.
        retry_after_s: seconds after which a retry may succeed; None where it cannot.
    """

    reason: str = ""
    retry_after_s: float | None = None
    _NOTHING: ClassVar[Mapping[str, str]] = MappingProxyType({})

    @property
    def metadata(self) -> Mapping[str, str]:
        """What belongs to the reason, for programs."""
        return self._NOTHING


class InvalidRequest(ServeError):
    """A field of the request is not what was expected.

    Args:
        field: its path, as "pixels.height".
        problem: as "expected 28 for model mnist, got 27".
    """

    reason = "INVALID_REQUEST"

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class BadImage(InvalidRequest):
    """A file of the request cannot be made into pixels.

    Args:
        index: of the file in the request, from 0.
        error: why.
        field: of the request that holds the files.
    """

    def __init__(self, index: int, error: PictureError, field: str = "encoded.images") -> None:
        super().__init__(f"{field}[{index}]", str(error))
        self.index = index
        self.error = error
        # The form that error_details.proto asks for.
        self.reason = error.reason.upper().replace("-", "_")


class NotABundle(InvalidRequest):
    """The model is an ONNX file that classifies no images.

    Args:
        model: its name.
    """

    def __init__(self, model: str) -> None:
        super().__init__(
            "model",
            f"expected a bundle, which classifies images, got {quoted(model)}, another ONNX file; "
            "ask it by Open Inference",
        )


class NotFound(ServeError):
    """No such model or version is loaded.

    Args:
        kind: "model" or "version".
        name: as it was asked for.
        message: which says what exists.
    """

    reason = "NOT_FOUND"

    def __init__(self, kind: str, name: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.name = name


class NoModel(NotFound):
    """No such model is loaded.

    Args:
        name: as it was asked for.
        names: of those that are.
    """

    def __init__(self, name: str, names: Sequence[str]) -> None:
        super().__init__("model", name, f"no model {quoted(name)}; loaded: {listed(names)}")
        self._names = names

    def seen_by(self, sees: Callable[[str], bool]) -> "NoModel":
        """Returns the error for a caller who may see only some models.

        Args:
            sees: returns whether the caller may see the model of a name.
        """
        return NoModel(self.name, [name for name in self._names if sees(name)])


class Unauthenticated(ServeError):
    """The call has no key, or one that is not known."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(ServeError):
    """The server does not allow it to this caller."""

    reason = "PERMISSION_DENIED"


class RateLimited(ServeError):
    """The caller's key allows no more calls, or images, now."""

    reason = "RATE_LIMITED"

    def __init__(self, message: str, retry_after_s: float | None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QuotaExceeded(RateLimited):
    """The caller's key allows no more calls today; its retry_after_s is until tomorrow."""

    reason = "QUOTA_EXCEEDED"


class FailedPrecondition(ServeError):
    """What an operator asks for is valid, and cannot be done as things are."""

    reason = "FAILED_PRECONDITION"


class VersionRefused(FailedPrecondition):
    """The version is in the models folder and cannot be served."""

    reason = "VERSION_REFUSED"


class VersionNotServed(FailedPrecondition):
    """A label needs a version that is served."""

    reason = "VERSION_NOT_SERVED"


class NotExplicit(FailedPrecondition):
    """The models folder has the model loaded and unloaded, no operator."""

    reason = "NOT_EXPLICIT"


class Unimplemented(ServeError):
    """There is no such method."""

    reason = "UNIMPLEMENTED"


class NotReady(ServeError):
    """The model is being loaded or unloaded, or the server is draining."""

    reason = "NOT_READY"
    retry_after_s: float = 1.0


class ModelLoading(NotReady):
    """The model is there, and not loaded yet.

    Args:
        message: for people.
        retry_after_s: until it probably is.
    """

    reason = "MODEL_LOADING"

    def __init__(self, message: str, retry_after_s: float = NotReady.retry_after_s) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ModelIdle(ModelLoading):
    """The model is loaded again now that a call asks for it.

    Args:
        name: of the model.
        load_s: that loading it took the last time.
    """

    def __init__(self, name: str, load_s: float) -> None:
        super().__init__(
            f"model {name} was unloaded, since nobody asked for it, and is loaded again", load_s
        )
        self.load_s = load_s


class Draining(NotReady):
    """The server is stopping."""

    reason = "DRAINING"


class QueueFull(ServeError):
    """A queue accepts no more; nothing was computed."""

    reason = "QUEUE_FULL"

    def __init__(self, message: str, retry_after_s: float | None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class CannotMeetDeadline(QueueFull):
    """The deadline would pass before the answer; nothing was computed.

    Its retry_after_s is the time after which a new call with as much time may be answered; None
    where that is too little for an idle server too. The same call has only less time later.
    """

    reason = "CANNOT_MEET_DEADLINE"


class MessageTooLarge(ServeError):
    """The message is over the limit.

    Args:
        message: for people.
        limit: largest message, bytes.
    """

    reason = "MESSAGE_TOO_LARGE"

    def __init__(self, message: str, limit: int) -> None:
        super().__init__(message)
        self.limit = limit

    @property
    def metadata(self) -> Mapping[str, str]:
        """The limit, bytes."""
        return {"limit_bytes": str(self.limit)}


class AnswerTooLarge(MessageTooLarge):
    """What the model gives for a request is over the limit of an answer."""

    reason = "ANSWER_TOO_LARGE"


class NoMemoryForRequest(ServeError):
    """Requests of which not all has come hold as much memory as they may."""

    reason = "NO_MEMORY_FOR_REQUEST"
    retry_after_s = 1.0


class RequestTooSlow(ServeError):
    """Hardly any byte of a request has come for too long, and it is not whole."""

    reason = "REQUEST_TOO_SLOW"


class AnswersUnread(ServeError):
    """The client of a stream has not read its answers for too long."""

    reason = "ANSWERS_UNREAD"


class DeadlinePassed(ServeError):
    """The deadline passed before the engine had the request."""

    reason = "DEADLINE_PASSED"


class Cancelled(ServeError):
    """The caller cancelled or went away."""

    reason = "CANCELLED"


class InternalFault(ServeError):
    """A fault of ours. The caller gets an id, the log the traceback.

    Args:
        what: failed.
        cause: why.
        request_id: of the call, if it is the only one that this ends; empty for an id of its own.
    """

    reason = "INTERNAL_FAULT"

    def __init__(self, what: str, cause: BaseException, request_id: str = "") -> None:
        self.id = request_id or uuid.uuid4().hex[:12]
        super().__init__(f"{what} failed; the server's log has more under id {self.id}")
        self.__cause__ = cause
        log.error("%s failed, id %s", what, self.id, exc_info=cause, extra={"fault_id": self.id})

    @property
    def metadata(self) -> Mapping[str, str]:
        """The id of the fault."""
        return {"fault_id": self.id}


def fitting(text: str, most: int = MAX_TEXT) -> str:
    """Returns a text, without its middle if it is longer than that when it is sent.

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
    """Returns a name that a request asks for, in quotes, cut to fit into a message."""
    return repr(fitting(name, _MAX_NAME))


def listed(names: Sequence[str]) -> str:
    """Returns the names that exist, as far as they fit into a message, and how many more exist."""
    text, left = "", _MAX_NAMES
    for number, name in enumerate(names):
        cut = fitting(name, _MAX_NAME)
        left -= _sent_bytes(f", {cut}")
        if left < 0:
            return f"{text}, and {len(names) - number} more"
        text += f", {cut}" if text else cut
    return text or "none"


def _sent_bytes(text: str) -> int:
    """Bytes of a text in grpc-message; servers differ in which of ASCII they encode, beside %."""
    return sum(1 if byte < 0x80 and chr(byte).isalnum() else 3 for byte in text.encode())
