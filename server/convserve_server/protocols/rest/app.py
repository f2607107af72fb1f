"""From a request to the call that answers it, and from its outcome to an answer; no input, output.

Nothing here raises: what is wrong with a request, and any fault of ours, is its answer.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache, partial

import msgspec
from google.rpc import code_pb2
from grpc_health.v1 import health_pb2

from convserve_server.core.errors import ServeError, listed, quoted
from convserve_server.protocols.base import Failure
from convserve_server.protocols.grpc_errors import to_failure
from convserve_server.protocols.key_check import AUTHORIZATION
from convserve_server.protocols.request_ids import REQUEST_ID, accepted_id
from convserve_server.protocols.rest import classify, infer, open_inference, openapi, rpc
from convserve_server.protocols.rest.encodings import decoded_body, encoded_answer, too_large
from convserve_server.protocols.rest.errors import failure_answer, fault_answer, problem_answer
from convserve_server.protocols.rest.hosts import check_host
from convserve_server.protocols.rest.messages import (
    Fields,
    HttpAnswer,
    HttpRequest,
    Operation,
    Problem,
    RestOptions,
)
from convserve_server.protocols.rest.pages import page_answer
from convserve_server.protocols.rest.parameters import timeout_of, unquoted

#: Returns what answers a request; may raise a Problem.
Handler = Callable[[HttpRequest, Mapping[str, str], RestOptions], HttpAnswer | Operation]


@dataclass(frozen=True)
class Route:
    """A path and what answers it.

    Attributes:
        verb: GET, which is HEAD as well, or POST.
        path: with parameters in braces, as OpenAPI has it.
        handler: of its requests.
        method: "/package.Service/Method", whose permission a request needs; empty: none.
    """

    verb: str
    path: str
    handler: Handler
    method: str = ""

    def pattern(self) -> str:
        """Returns a regular expression of the path; a parameter is a part of it without a colon."""
        return re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/:]+)", re.escape(self.path))


_HEALTH = "/grpc.health.v1.Health/Check"


def _live(request: HttpRequest, _: Mapping[str, str], __: RestOptions) -> HttpAnswer:
    return HttpAnswer(200, b'{"live":true}')


def _ready(request: HttpRequest, _: Mapping[str, str], __: RestOptions) -> Operation:
    return Operation(_HEALTH, b"", _ready_answer, _not_ready, timeout_of(request))


def _ready_answer(payload: bytes) -> HttpAnswer:
    status = health_pb2.HealthCheckResponse.FromString(payload).status
    ready = status == health_pb2.HealthCheckResponse.SERVING
    return HttpAnswer(200 if ready else 503, msgspec.json.encode({"ready": ready}))


def _not_ready(failure: Failure) -> HttpAnswer:
    """Returns the answer while no model was ever loaded, or once the server stops."""
    if failure.code in (code_pb2.NOT_FOUND, code_pb2.UNAVAILABLE):
        return HttpAnswer(503, b'{"ready":false}')
    return failure_answer(failure)


def _openapi(_: HttpRequest, __: Mapping[str, str], ___: RestOptions) -> HttpAnswer:
    return HttpAnswer(200, _document())


@cache
def _document() -> bytes:
    """Returns the description of all paths; made when somebody asks for it."""
    return msgspec.json.encode(openapi.document())


#: Methods whose permissions the paths below need.
_CLASSIFY, _LIST = (f"/convserve.v1.Classifier/{each}" for each in ("Classify", "ListModels"))
_SERVER, _LIVE, _INFER, _INDEXED, _LOAD, _UNLOAD = (
    f"{infer.SERVICE}/{each}"
    for each in (
        "ServerMetadata",
        "ServerLive",
        "ModelInfer",
        "RepositoryIndex",
        "RepositoryModelLoad",
        "RepositoryModelUnload",
    )
)
_METADATA, _MODEL_READY, _CONFIG, _STATS = (
    f"{infer.SERVICE}/Model{each}" for each in ("Metadata", "Ready", "Config", "Statistics")
)

#: All paths but those of pages and of services by their names.
ROUTES = (
    Route("GET", "/openapi.json", _openapi),
    Route("GET", "/v1/models", classify.list_models, _LIST),
    Route("POST", "/v1/models/{model}:classify", classify.classify, _CLASSIFY),
    Route("POST", "/v1/models/{model}/versions/{version}:classify", classify.classify, _CLASSIFY),
    Route("GET", "/v2", open_inference.server, _SERVER),
    Route("GET", "/v2/health/live", _live, _LIVE),
    Route("GET", "/v2/health/ready", _ready, _HEALTH),
    Route("GET", "/v2/models/stats", open_inference.statistics, _STATS),
    Route("GET", "/v2/models/{model}", open_inference.model, _METADATA),
    Route("GET", "/v2/models/{model}/versions/{version}", open_inference.model, _METADATA),
    Route("GET", "/v2/models/{model}/ready", open_inference.ready, _MODEL_READY),
    Route("GET", "/v2/models/{model}/versions/{version}/ready", open_inference.ready, _MODEL_READY),
    Route("GET", "/v2/models/{model}/config", open_inference.config, _CONFIG),
    Route("GET", "/v2/models/{model}/versions/{version}/config", open_inference.config, _CONFIG),
    Route("GET", "/v2/models/{model}/stats", open_inference.statistics, _STATS),
    Route("GET", "/v2/models/{model}/versions/{version}/stats", open_inference.statistics, _STATS),
    Route("POST", "/v2/models/{model}/infer", infer.infer, _INFER),
    Route("POST", "/v2/models/{model}/versions/{version}/infer", infer.infer, _INFER),
    Route("POST", "/v2/repository/index", open_inference.index, _INDEXED),
    Route("POST", "/v2/repository/models/{model}/load", open_inference.load, _LOAD),
    Route("POST", "/v2/repository/models/{model}/unload", open_inference.unload, _UNLOAD),
)

_PATTERNS = [(re.compile(route.pattern()), route) for route in ROUTES]

#: Longest path, bytes.
_MOST_PATH = 1024

#: Of every answer.
_ALWAYS: Fields = (("x-content-type-options", "nosniff"),)

#: What a page of another origin may send, and what it may see.
_ALLOWED_HEADERS = (
    "authorization, content-type, content-encoding, connect-protocol-version, connect-timeout-ms, "
    "grpc-timeout, x-grpc-web, x-user-agent, x-request-id, x-timeout-ms, convserve-priority, "
    "inference-header-content-length"
)
_EXPOSED_HEADERS = (
    "grpc-status, grpc-message, grpc-status-details-bin, retry-after, x-request-id, "
    "inference-header-content-length"
)
#: For which a browser need not ask again, s.
_PREFLIGHT_S = 7200


class RestApp:
    """What the transport asks for every request.

    Args:
        options: see RestOptions.
        streams: paths of the methods that need gRPC.
        refused: notes a call that is refused here, by its method.
    """

    def __init__(
        self,
        options: RestOptions,
        streams: Iterable[str] = (),
        refused: Callable[[str, ServeError], None] = lambda _, __: None,
    ) -> None:
        self._options = options
        self._streams = frozenset(streams)
        self._refused = refused

    def handle(self, request: HttpRequest) -> HttpAnswer | Operation:
        """Returns the answer to a request, or the call that gives it."""
        try:
            return self._handle(request)
        except Problem as problem:
            return problem_answer(problem)
        except ServeError as error:
            return failure_answer(to_failure(error))
        except Exception as error:  # noqa: BLE001 - a fault of ours, which the client must hear of
            return fault_answer(f"{request.method} {request.path}", error)

    def admits(self, request: HttpRequest) -> bool:
        """Returns whether the body of a request may come: whether its caller may make it.

        What is found is kept with the request, whose answer handle() gives.

        Args:
            request: without its body.
        """
        try:
            self._check_sender(request)
            asked = _asked(request)
            if asked is not None:
                self._admit(request, *asked)
        except ServeError as error:
            request.refusal = error
        except Problem:
            return True  # handle() reports it, once all has come
        return request.refusal is None

    def outcome(
        self, request: HttpRequest, operation: Operation, outcome: bytes | Failure
    ) -> HttpAnswer | Operation:
        """Returns the answer to a request, or one more call.

        Args:
            request: that is to be answered.
            operation: that handle() has returned, or this function.
            outcome: of its call.
        """
        try:
            if isinstance(outcome, Failure):
                return operation.failure(outcome)
            return operation.answer(outcome)
        except Problem as problem:
            return problem_answer(problem)
        except Exception as error:  # noqa: BLE001 - a fault of ours, which the client must hear of
            return fault_answer(f"{request.method} {request.path}", error)

    def finish(self, request: HttpRequest, answer: HttpAnswer) -> HttpAnswer:
        """Returns an answer as it is sent: compressed where asked for, with headers of all."""
        answer = encoded_answer(request, answer)
        headers = answer.headers + _ALWAYS
        headers_in = request.headers
        if request_id := request.id or accepted_id(headers_in.get(REQUEST_ID)):
            headers += ((REQUEST_ID, request_id),)
        if "origin" in headers_in:
            headers += (("vary", "origin"),)
            if self._is_shared_with(headers_in["origin"]):
                headers += (
                    ("access-control-allow-origin", headers_in["origin"]),
                    ("access-control-expose-headers", _EXPOSED_HEADERS),
                )
        return HttpAnswer(answer.status, answer.body, answer.content_type, headers)

    def _handle(self, request: HttpRequest) -> HttpAnswer | Operation:
        self._check_sender(request)
        if request.method == "OPTIONS":
            return self._options_answer(request)
        verb = "GET" if request.method == "HEAD" else request.method
        found = _routes(request.path)
        if not found and rpc.is_method(request.path):
            if verb != "POST":
                raise _wrong_method(request, ["POST"])
            admit = partial(self._admit, request, request.path)
            return rpc.call(request, self._options.max_message_bytes, self._streams, admit)
        if not found:
            return self._page(request, verb)
        for route, parts in found:
            if route.verb == verb:
                parameters = {name: unquoted(name, part) for name, part in parts.items()}
                if route.method:
                    self._admit(request, route.method, parameters.get("model"))
                request.body = decoded_body(request, self._options.max_message_bytes)
                step = route.handler(request, parameters, self._options)
                if isinstance(step, Operation):
                    self._check_size(step)
                return step
        raise _wrong_method(request, [route.verb for route, _ in found])

    def _check_sender(self, request: HttpRequest) -> None:
        """Refuses what may come from a page of others, and paths that are too long.

        Raises:
            Problem: if it is such.
        """
        check_host(request, self._options.hosts)
        self._check_origin(request)
        if len(request.path) > _MOST_PATH:
            raise Problem(
                414,
                "PATH_TOO_LONG",
                f"path: expected at most {_MOST_PATH} bytes, got {len(request.path)}",
            )

    def _admit(self, request: HttpRequest, method: str, model: str | None = None) -> None:
        """Admits a request before more of it is parsed than its path; once.

        Args:
            request: that came.
            method: that it is to become.
            model: that its path names.

        Raises:
            ServeError: its caller may not make it; see KeyCheck.admit.
        """
        if request.refusal is not None:
            raise request.refusal
        key_check = self._options.key_check
        if key_check is None or request.admitted:
            return
        try:
            authorization = request.headers.get(AUTHORIZATION)
            access = key_check.admit(method, authorization, request.identity)
            if access is not None and model is not None:
                access.check_model(model)
        except ServeError as error:
            self._refused(method, error)
            raise
        request.access, request.admitted = access, True

    def _check_size(self, operation: Operation) -> None:
        """Refuses what the router would, in the words of a body.

        Raises:
            Problem: if it is too large.
        """
        most, size = self._options.max_message_bytes, len(operation.payload)
        if size > most:
            raise too_large(most, f"{size} with what the message has beside it")

    def _page(self, request: HttpRequest, verb: str) -> HttpAnswer:
        page = self._options.pages.get(request.path)
        if page is None and request.path == "/":
            page = _INDEX
        if page is None:
            raise Problem(
                404,
                "NOT_FOUND",
                f"path: expected one of {listed(sorted({route.path for route in ROUTES}))}, "
                f"got {quoted(request.path)}",
            )
        if verb != "GET":
            raise _wrong_method(request, ["GET"])
        return page if page is _INDEX else page_answer(request, page)

    def _options_answer(self, request: HttpRequest) -> HttpAnswer:
        """Returns what may be asked of a path, also for a browser's question beforehand."""
        verbs = {route.verb for route, _ in _routes(request.path)}
        verbs = verbs or {"POST" if rpc.is_method(request.path) else "GET"}
        allowed = ", ".join(sorted({*verbs, "OPTIONS", *(("HEAD",) if "GET" in verbs else ())}))
        headers: Fields = (("allow", allowed),)
        if "access-control-request-method" in request.headers:
            headers = (
                ("access-control-allow-methods", allowed),
                ("access-control-allow-headers", _ALLOWED_HEADERS),
                ("access-control-max-age", str(_PREFLIGHT_S)),
            )
        return HttpAnswer(204, b"", "", headers)

    def _check_origin(self, request: HttpRequest) -> None:
        """Refuses what a page of another origin sends, which need not ask before a simple POST.

        Raises:
            Problem: if the origin is neither this server nor among those of the settings.
        """
        origin = request.headers.get("origin")
        if origin is None or self._is_shared_with(origin):
            return
        host = request.headers.get("host", "")
        if origin.partition("://")[2].lower() != host.lower():
            raise Problem(
                403,
                "ORIGIN_REFUSED",
                f"origin: expected {listed([host, *sorted(self._options.origins)])}, "
                f"got {quoted(origin)}",
            )

    def _is_shared_with(self, origin: str) -> bool:
        return origin in self._options.origins or "*" in self._options.origins


@lru_cache(maxsize=1024)
def _routes(path: str) -> list[tuple[Route, Mapping[str, str]]]:
    """Returns the routes of a path, and the parts of it that are parameters; kept, as is a path."""
    matches = ((pattern.fullmatch(path), route) for pattern, route in _PATTERNS)
    return [(route, match.groupdict()) for match, route in matches if match]


def _asked(request: HttpRequest) -> tuple[str, str | None] | None:
    """Returns the method that a request is to become, and the model of its path; None for none.

    Raises:
        Problem: if the path is wrong.
    """
    found = _routes(request.path)
    if not found and rpc.is_method(request.path):
        return request.path, None
    for route, parts in found:
        if route.verb == request.method and route.method:
            model = parts.get("model")
            return route.method, None if model is None else unquoted("model", model)
    return None


def _wrong_method(request: HttpRequest, verbs: list[str]) -> Problem:
    allowed = sorted({*verbs, "OPTIONS", *(("HEAD",) if "GET" in verbs else ())})
    return Problem(
        405,
        "METHOD_NOT_ALLOWED",
        f"method: expected {listed(allowed)}, got {quoted(request.method)}",
        (("allow", ", ".join(allowed)),),
    )


#: At "/" of a server without a page.
_INDEX = HttpAnswer(
    200,
    msgspec.json.encode({"routes": [f"{route.verb} {route.path}" for route in ROUTES]}),
)
