"""The decisions of a call, without I/O: what to ask, what came of it, and what the caller gets.

What a client does is a flow of steps (steps.py). `Client` performs them with threads, `AsyncClient`
with an event loop; neither decides anything.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy.typing as npt
from grpc_health.v1 import health_pb2

from convserve.arguments import validate_seconds, validate_text
from convserve.background import BackgroundCheck
from convserve.call_set import CallSet
from convserve.calls import (
    ClassifyOptions,
    Images,
    Metadata,
    VersionChoice,
    split,
    split_images,
)
from convserve.channel import open_channel
from convserve.deadline import Deadline
from convserve.encoded import File, is_bytes
from convserve.error_mapping import translated
from convserve.errors import ClientClosed, ConvserveError, ModelNotFound
from convserve.health import Health, health_from_error, read_health
from convserve.model_choice import ModelChoice
from convserve.models import ModelInfo, RefusedVersion, find_model, read_models, read_refused
from convserve.pending_requests import Outcome, PendingRequests, Refused
from convserve.pillow_pictures import has_pictures
from convserve.replies import read_replies
from convserve.results import Classification
from convserve.retries import Tries
from convserve.settings import (
    DEFAULT_TIMEOUT_S,
    MAX_BYTES_PER_CALL,
    MAX_IMAGES_PER_CALL,
    MAX_IN_FLIGHT,
    MAX_TRIES,
    PRIORITY_KEY,
    Priority,
    Settings,
    choose_key,
    choose_retries,
    default_model,
    default_server,
    validate_priority,
)
from convserve.steps import BlockingWork, Flow, UnaryCall, Wait
from convserve.tls import choose_tls
from convserve.tls_failures import Diagnosis
from convserve_protos import classifier_pb2


class ClientCore(ABC):
    """What both clients are, apart from their I/O."""

    def __init__(
        self,
        server: str | None = None,
        *,
        model: str | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
        wait_for_ready: bool = False,
        max_images_per_call: int = MAX_IMAGES_PER_CALL,
        max_bytes_per_call: int = MAX_BYTES_PER_CALL,
        max_in_flight: int = MAX_IN_FLIGHT,
        max_tries: int = MAX_TRIES,
        retry_unavailable: bool | None = None,
        priority: Priority | None = None,
        tls: bool | None = None,
        tls_ca: str | PathLike[str] | None = None,
        tls_cert: str | PathLike[str] | None = None,
        tls_key: str | PathLike[str] | None = None,
        tls_server_name: str | None = None,
        key_file: str | PathLike[str] | None = None,
    ) -> None:
        """Makes a client; the connection is made when it is first needed.

        Args:
            server: HOST:PORT, or another form of address.validate_server. Several addresses behind
                one name ("dns:///classifier:50051") are used in turn. Calls go through the proxy
                that grpc_proxy, https_proxy or http_proxy names, unless no_grpc_proxy or no_proxy
                excepts the host; never to this machine. None: the variable CONVSERVE_SERVER, or
                localhost:50051.
            model: Name of the model for calls that name none. None: the variable CONVSERVE_MODEL;
                if that is not set, the only model that the server has, or the only one that fits
                the size and kind of what is sent (model_choice.py has the rule), which costs one
                more call the first time.
            timeout: Longest wait for an answer, in seconds, for all that a call of this library
                does: retries, waits and all parts of a large request.
            wait_for_ready: Wait, within the timeout, for a server that is not there yet, rather
                than fail after a few tries.
            max_images_per_call: What is more is split into several calls.
            max_bytes_per_call: Pixels or files in one call, in bytes; a single image may be more.
            max_in_flight: Calls of one request, or requests of a stream, unanswered at one time.
            max_tries: Tries, within the timeout, of a call that the server refuses and says when to
                try again; 1: it is not tried again. See retries.py.
            retry_unavailable: Make calls that ended as UNAVAILABLE again: the connection was lost
                or could not be made, or the server is starting or stopping. False: where a proxy
                does that, so that each of its tries is not multiplied. None: the variable
                CONVSERVE_RETRY_UNAVAILABLE, 1 or 0, or True.
            priority: "batch" for work that nobody waits for: a busy server answers it from what
                "interactive" calls leave, and a share that it keeps for it. None: what the server
                does where nothing is sent, which is "interactive".
            tls: Speak TLS. None: where one of the next three is given; or as the variable
                CONVSERVE_TLS has it, 1 or 0.
            tls_ca: File with the authorities that sign servers' certificates (PEM). None: the
                variable CONVSERVE_TLS_CA, or those that this machine trusts.
            tls_cert: File with the client's own certificate (PEM), for a server that asks for one.
                None: the variable CONVSERVE_CLIENT_CERT. These files are read when the connection
                is made; a client lives no longer than its certificate.
            tls_key: File with its private key (PEM). None: the variable CONVSERVE_CLIENT_KEY.
            tls_server_name: Name that the server's certificate must have. None: the variable
                CONVSERVE_TLS_SERVER_NAME, or the host in the address.
            key_file: File with the key by which the server knows the caller; sent with each call,
                and read again when the file changes. None: the variable CONVSERVE_KEY_FILE, or no
                key. Without TLS, and to another machine, a UserWarning once for each server.

        Raises:
            InvalidRequest: An argument is of another kind, or beyond its bounds.
        """
        self._settings = Settings(
            server=default_server() if server is None else server,
            model=model or default_model(),
            timeout_s=timeout,
            wait_for_ready=wait_for_ready,
            max_images_per_call=max_images_per_call,
            max_bytes_per_call=max_bytes_per_call,
            max_in_flight=max_in_flight,
            max_tries=max_tries,
            retry_unavailable=choose_retries(retry_unavailable),
            priority=priority,
            tls=choose_tls(tls, tls_ca, tls_cert, tls_key, tls_server_name),
            key=choose_key(key_file),
        )
        self._diagnosis = Diagnosis(self._settings.server, self._settings.tls)
        self._closed = False
        self._choice = ModelChoice(self._settings.model)
        self._background = BackgroundCheck()
        self._init_io()

    @abstractmethod
    def _init_io(self) -> None:
        """Sets what the I/O of this kind of client needs; connects to nothing."""

    def _classify(
        self,
        pixels: npt.ArrayLike,
        model: str | None,
        version: VersionChoice,
        top_k: int | None,
        timeout: float | None,
        priority: Priority | None,
    ) -> Flow[Classification]:
        calls = split(pixels, self._settings)
        deadline = self._deadline(timeout)
        answer = yield from self._answer(calls, model, version, top_k, deadline, priority)
        if self._background.is_suspicious(calls):
            # Advice only: the answer is there, whether or not the models can be listed now.
            kind = ""
            with suppress(ConvserveError):
                kind = (yield from self._model(model, version, deadline)).kind
            self._background.warn(calls, kind)
        return answer

    def _classify_images(
        self,
        images: File | Sequence[File],
        model: str | None,
        version: VersionChoice,
        top_k: int | None,
        timeout: float | None,
        priority: Priority | None,
    ) -> Flow[Classification]:
        deadline = self._deadline(timeout)
        png = True
        if has_pictures(images):
            asked = yield from self._model(model, version, deadline)
            png = "PNG" in asked.file_formats
        if is_bytes(images):
            calls = split_images(images, self._settings)
        else:
            calls = yield BlockingWork(lambda: split_images(images, self._settings, png))
        return (yield from self._answer(calls, model, version, top_k, deadline, priority))

    def _pending_requests(
        self, model: str | None, version: VersionChoice, top_k: int | None, deadline: Deadline
    ) -> Flow[PendingRequests]:
        """Returns what numbers and matches the requests of a stream."""
        options = ClassifyOptions.validated(model, version, top_k)
        name = self._choice.named(options.model)
        if name is None:
            loaded = yield from self._models(deadline)

            def options_for(images: Images) -> ClassifyOptions:
                chosen = self._choice.among(loaded, options.version, [images])
                return replace(options, model=chosen)
        else:
            named = replace(options, model=name)

            def options_for(images: Images) -> ClassifyOptions:
                return named

        return PendingRequests(options_for, self._settings, deadline.timeout_s)

    def _again(self, refused: Refused, metadata: Metadata) -> Flow[Outcome | Refused]:
        """Makes a request of a stream again as a call, once; returns what it came to."""
        request, deadline = refused.request, refused.deadline
        try:
            reply = yield UnaryCall(
                lambda stubs: stubs.classifier.Classify, request, deadline, metadata
            )
            return refused.answered(reply)
        except ConvserveError as error:
            return refused.failed(error)

    def _models(self, deadline: Deadline) -> Flow[list[ModelInfo]]:
        return read_models((yield from self._tried(_list_models(deadline))))

    def _refused(self, deadline: Deadline) -> Flow[list[RefusedVersion]]:
        return read_refused((yield from self._tried(_list_models(deadline))))

    def _health(self, service: str, deadline: Deadline) -> Flow[Health]:
        request = health_pb2.HealthCheckRequest(service=validate_text("service", service))
        try:
            reply = yield UnaryCall(lambda stubs: stubs.health.Check, request, deadline)
        except ConvserveError as error:
            return health_from_error(error)
        return read_health(reply.status)

    def _answer(
        self,
        calls: Sequence[Images],
        model: str | None,
        version: VersionChoice,
        top_k: int | None,
        deadline: Deadline,
        priority: Priority | None,
    ) -> Flow[Classification]:
        options = ClassifyOptions.validated(model, version, top_k)
        metadata = self._metadata(priority)
        name = self._choice.named(options.model) or self._choice.remembered(options.version, calls)
        if name is None:
            loaded = yield from self._models(deadline)
            name = self._choice.among(loaded, options.version, calls)
        options = replace(options, model=name)
        if len(calls) == 1:
            request = options.request(calls[0])
            call = UnaryCall(lambda stubs: stubs.classifier.Classify, request, deadline, metadata)
            replies = [(yield from self._tried(call))]
        else:
            replies = yield CallSet(calls, options, deadline, self._settings, metadata)
        return read_replies(replies, list(map(len, calls)), options, deadline.spent_us())

    def _tried(self, call: UnaryCall) -> Flow[Any]:
        """Makes a call, and again as far as retries.py allows."""
        tries = Tries.of(call.deadline, self._settings)
        while True:
            try:
                return (yield call)
            except ConvserveError as error:
                wait_s = tries.pause_s(error)
            yield Wait(wait_s)

    def _model(
        self, model: str | None, version: VersionChoice, deadline: Deadline
    ) -> Flow[ModelInfo]:
        """Returns the model for pictures of Pillow: what it reads decides how they are sent."""
        options = ClassifyOptions.validated(model, version, None)
        loaded = yield from self._models(deadline)
        name = self._choice.named(options.model)
        name = name or self._choice.for_pictures(loaded, options.version)
        return find_model(loaded, name, options.version)

    def _metadata(self, priority: Priority | None) -> Metadata:
        """Returns what is sent beside the messages of a request."""
        chosen = self._settings.priority if priority is None else validate_priority(priority)
        return () if chosen is None else ((PRIORITY_KEY, chosen),)

    def _sent(self, metadata: Metadata) -> Metadata:
        """Returns what is sent beside a message: what belongs to the request, and the key."""
        key = self._settings.key
        return metadata if key is None else (*metadata, *key.metadata())

    def _open_channel(self, api: Any) -> Any:
        """Opens the channel; see channel.open_channel."""
        settings = self._settings
        if settings.key is not None and settings.tls is None:
            settings.key.warn_in_plain(settings.server)
        retried = settings.retry_unavailable
        return open_channel(settings.server, api, settings.tls, retry_unavailable=retried)

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline.after(
            self._settings.timeout_s if timeout is None else validate_seconds("timeout", timeout)
        )

    @contextmanager
    def _translated(self, deadline: Deadline, sent_bytes: Callable[[], int]) -> Iterator[None]:
        """Raises this library's errors for those of gRPC.

        Args:
            deadline: That of the call inside.
            sent_bytes: Returns the size of the largest message that was sent.

        Raises:
            ConvserveError: The call inside failed, or the client is closed.
        """
        self._check_open()
        try:
            with translated(self._settings.server, deadline, sent_bytes, self._settings.tls):
                yield
        except ModelNotFound:
            self._choice.forget()  # It may have been replaced by another one.
            raise

    def _check_open(self) -> None:
        if self._closed:
            raise self._closed_error()

    def _closed_error(self) -> ClientClosed:
        return ClientClosed(f"the client of {self._settings.server} is closed")


def _list_models(deadline: Deadline) -> UnaryCall:
    request = classifier_pb2.ListModelsRequest()
    return UnaryCall(lambda stubs: stubs.classifier.ListModels, request, deadline)
