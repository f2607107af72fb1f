"""A stand-in for S3 (moto) that also does what stores do wrong, when a test says so."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from convserve_store.location import open_location

BUCKET = "convserve-test"

#: What a user's shell would hold; no test reads the machine's own.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "stand-in",
    "AWS_SECRET_ACCESS_KEY": "stand-in",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


_DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


class _Quiet(WSGIRequestHandler):  # type: ignore[misc,unused-ignore]  # Untyped here.
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - of the base
        pass


class StandIn:
    """S3 on a port of this machine. Its objects outlive its server: see `away`."""

    def __init__(self) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)
        #: Those that came, as "METHOD PATH".
        self.requests: list[str] = []
        #: Headers of conditions that it ignores, as "HTTP_IF_NONE_MATCH".
        self.ignores: set[str] = set()
        #: Called with each request before it is answered; may wait.
        self.holds: Callable[[str], None] = lambda request: None
        #: Loses the answer to the next request of which this returns True, after doing it.
        self.loses: Callable[[str], bool] = lambda request: False
        #: Answers 503 to requests of which this returns True, and does nothing.
        self.fails: Callable[[str], bool] = lambda request: False
        #: Answers that the credentials do not allow it, to requests of which this returns True.
        self.denies: Callable[[str], bool] = lambda request: False
        self._port = 0
        self._server: BaseWSGIServer
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a program needs to use it."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": self.url}

    def start(self) -> None:
        self._server = make_server(
            "127.0.0.1", self._port, self._answer, threaded=True, request_handler=_Quiet
        )
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def behave(self) -> None:
        """Does nothing wrong from now on."""
        self.ignores.clear()
        self.holds = lambda request: None
        self.loses = self.fails = self.denies = lambda request: False

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Nobody listens on its port meanwhile."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        self.requests.append(request)
        self.holds(request)
        if self.fails(request):
            start_response("503 Service Unavailable", [("Content-Length", "0")])
            return []
        if self.denies(request):
            # As S3 does it: no content for HEAD, after which a client expects none.
            content = b"" if environ["REQUEST_METHOD"] == "HEAD" else _DENIED
            length = ("Content-Length", str(len(content)))
            start_response("403 Forbidden", [("Content-Type", "application/xml"), length])
            return [content]
        for header in self.ignores:
            environ.pop(header, None)
        if not self.loses(request):
            return self._moto(environ, start_response)  # type: ignore[no-any-return]
        self.loses = lambda request: False
        self._moto(environ, lambda *_: lambda _: None)
        start_response("503 Service Unavailable", [("Content-Length", "0")])
        return []


@contextlib.contextmanager
def with_bucket(stand_in: StandIn) -> Iterator[StandIn]:
    """A stand-in with an empty bucket; whoever asks has its environment."""
    filesystem = open_location(f"s3://{BUCKET}").filesystem
    filesystem.mkdir(BUCKET)
    stand_in.requests.clear()
    yield stand_in
    stand_in.behave()
    filesystem.rm(BUCKET, recursive=True)
