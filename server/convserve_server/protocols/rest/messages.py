"""What passes between the transport of HTTP and these protocols."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from convserve_server.core.errors import ServeError
from convserve_server.protocols.access import Access
from convserve_server.protocols.base import Failure
from convserve_server.protocols.key_check import KeyCheck

JSON = "application/json"

Fields = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class HttpRequest:
    """A whole request.

    Attributes:
        method: in upper case.
        path: as it came, with its percent signs.
        query: behind the question mark.
        headers: by their names in lower case; several of one name are joined by commas.
        body: as it came; decompressed before a route's function gets it.
        id: that the log has of a call that failed; empty: the one in the headers, if any.
        identity: see Caller.
        access: what its caller may do and see, once that is checked; None: everything.
        admitted: whether that is checked.
        refusal: why its caller may not make it; None: not known to be so.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    id: str = ""
    identity: str = ""
    access: Access | None = None
    admitted: bool = False
    refusal: ServeError | None = None

    def content_type(self) -> str:
        """Returns the type of the body without parameters, in lower case; empty: not stated."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A whole answer.

    Attributes:
        status: of HTTP.
        body: of the answer.
        content_type: of the body; empty for none.
        headers: beside those that say what the body is.
    """

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: Fields = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """A call that answers a request.

    Attributes:
        method: "/package.Service/Method".
        payload: the call's request.
        answer: makes the answer of the call's, or asks for one more call.
        failure: makes the answer of the call's error.
        timeout_s: after which the client waits no longer; None: it does not say.
    """

    method: str
    payload: bytes
    answer: "Callable[[bytes], HttpAnswer | Operation]"
    failure: Callable[[Failure], HttpAnswer]
    timeout_s: float | None = None


class Problem(Exception):
    """A request that is wrong as HTTP, before any service sees it; str() is its message.

    Args:
        status: of HTTP.
        reason: for programs: UPPER_SNAKE_CASE.
        message: for people, as "body: expected a picture file, got none".
        headers: of the answer.
        retry_after_s: after which the same request may succeed.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        headers: Fields = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.headers = headers
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, kw_only=True)
class RestOptions:
    """What the protocols honour.

    Attributes:
        max_message_bytes: of a body, also once it is decompressed.
        max_images: in one request.
        origins: whose pages may call, beside those of the server itself; "*" for any.
        pages: files that are served, by their path.
        hosts: names of the server; see hosts.check_host.
        key_check: checks the keys of callers; None: there are none.
    """

    max_message_bytes: int
    max_images: int
    origins: frozenset[str] = frozenset()
    pages: Mapping[str, HttpAnswer] = field(default_factory=dict)
    hosts: frozenset[str] = frozenset()
    key_check: KeyCheck | None = None
