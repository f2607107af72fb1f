"""The client for programs without an event loop."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import grpc
import numpy.typing as npt
from grpc_health.v1 import health_pb2, health_pb2_grpc

from convserve.calls import Calls, Question, checked, split
from convserve.channel import channel_options
from convserve.deadline import Deadline
from convserve.errors import ClientClosed, ConvserveError, ModelNotFound
from convserve.health import Health, health_from_error, read_health
from convserve.ledger import Ledger, Outcome
from convserve.models import ModelInfo, only_model, read_models
from convserve.replies import read_replies
from convserve.results import Classification
from convserve.settings import (
    DEFAULT_SERVER,
    DEFAULT_TIMEOUT_S,
    MAX_BYTES_PER_CALL,
    MAX_IMAGES_PER_CALL,
    MAX_IN_FLIGHT,
    Settings,
    checked_timeout_s,
)
from convserve.statuses import translated
from convserve.stream import Stream
from convserve_protos import classifier_pb2, classifier_pb2_grpc


class Client:
    """Asks a Convserve server what is in pictures.

    One client serves any number of threads; it holds one connection to each server behind the name.

        with Client("localhost:50051") as client:
            print(client.classify(digit).label)
    """

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        *,
        model: str | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
        wait_for_ready: bool = False,
        max_images_per_call: int = MAX_IMAGES_PER_CALL,
        max_bytes_per_call: int = MAX_BYTES_PER_CALL,
        max_in_flight: int = MAX_IN_FLIGHT,
    ) -> None:
        """Makes a client; the connection is made when it is first needed.

        Args:
            server: HOST:PORT, or another target of gRPC's name syntax. Several addresses behind one
                name ("dns:///classifier:50051") are used in turn.
            model: Name of the model for calls that name none. None: the only one that the server
                has, which costs one more call the first time.
            timeout: Longest wait for an answer, in seconds, for all that a call of this library
                does: retries, waits and all parts of a large request.
            wait_for_ready: Wait, within the timeout, for a server that is not there yet, rather
                than fail after a few tries.
            max_images_per_call: What is more is split into several calls.
            max_bytes_per_call: Pixels in one call, in bytes; a single image may be more.
            max_in_flight: Calls of one request, or requests of a stream, unanswered at one time.

        Raises:
            InvalidRequest: An argument is not what is taken.
        """
        self._settings = Settings(
            server=server,
            model=model,
            timeout_s=timeout,
            wait_for_ready=wait_for_ready,
            max_images_per_call=max_images_per_call,
            max_bytes_per_call=max_bytes_per_call,
            max_in_flight=max_in_flight,
        )
        self._channel = grpc.insecure_channel(server, options=channel_options())
        self._classifier = classifier_pb2_grpc.ClassifierStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)
        self._only_model: str | None = None
        self._closed = False

    def classify(
        self,
        pixels: npt.ArrayLike,
        *,
        model: str | None = None,
        version: int | None = None,
        top_k: int | None = None,
        timeout: float | None = None,
    ) -> Classification:
        """Classifies one image or many.

        What is too large for one call is split, with several calls under way; the first call that
        fails ends the others.

        Args:
            pixels: uint8, 0 to 255, not scaled, of the size that the model takes: [H, W] or
                [H, W, C] for one image, [N, H, W] or [N, H, W, C] for many, C being 1 (grey) or 3
                (RGB). Three dimensions are one image if the last is 1 or 3.
            model: Name of the model. None: the client's model.
            version: Its version. None: the newest that is loaded.
            top_k: Only the k most probable classes, 1 to the number of classes. None: all.
            timeout: Seconds for the whole request. None: the client's timeout.

        Returns:
            One result for each image, in order; that of a single image can be read from it
            directly. An image that the server could not read has an error in place of an answer.

        Raises:
            InvalidRequest: The pixels or an argument are not what is taken.
            ModelNotFound: No such model or version is loaded.
            DeadlineExceeded: There was no answer in time.
            ServerUnavailable: The server cannot be reached, is starting or shutting down.
            ServerBusy: The server's queue stayed full through all tries.
            ConvserveError: Whatever else went wrong; see errors.py.
        """
        calls = split(pixels, self._settings)
        deadline = self._deadline(timeout)
        started = time.monotonic()
        question = self._question(model, version, top_k, deadline)
        with self._calling(deadline):
            if len(calls) == 1:
                replies = [self._call(question.request(calls.batch), deadline)]
            else:
                replies = self._call_all(calls, question, deadline)
        total_us = round((time.monotonic() - started) * 1e6)
        return read_replies(replies, calls.counts, question, total_us)

    def stream(
        self,
        arrays: Iterable[npt.ArrayLike],
        *,
        model: str | None = None,
        version: int | None = None,
        top_k: int | None = None,
        timeout: float | None = None,
    ) -> Iterator[tuple[int, Outcome]]:
        """Classifies arrays as they come, over one stream, and gives the answers as they finish.

        At most max_in_flight arrays have been taken and not yet given back, so memory stays flat.
        The arrays are read in another thread, so a slow source holds up no answer. Calls on a
        stream are not tried again.

        Args:
            arrays: Each is one image or several, as in classify, and one message: not split.
            model: Name of the model. None: the client's model.
            version: Its version. None: the newest that is loaded.
            top_k: Only the k most probable classes. None: all.
            timeout: Longest wait for the answer to an array, in seconds. None: the client's.

        Yields:
            The number of the array, from 0, and its Classification, or the error that classify
            would have raised for it; the stream goes on after an error.

        Raises:
            InvalidRequest: An array is not what is taken, which was seen before it was sent.
            ConvserveError: The stream itself failed; see errors.py.
            Exception: Whatever reading the arrays raised.
        """
        deadline = self._deadline(timeout)
        question = self._question(model, version, top_k, deadline)
        ledger = Ledger(question, self._settings, deadline.timeout_s)
        stream = Stream(arrays, ledger, self._settings.max_in_flight)
        with self._calling(deadline):
            call = self._classifier.StreamClassify(
                stream.requests(), wait_for_ready=self._settings.wait_for_ready
            )
            yield from stream.outcomes(call)

    def models(self, *, timeout: float | None = None) -> list[ModelInfo]:
        """Returns the models that the server has loaded, by name, the newest version first.

        Raises:
            ConvserveError: See errors.py.
        """
        return self._models(self._deadline(timeout))

    def health(self, service: str = "", *, timeout: float | None = None) -> Health:
        """Asks whether the server, or one service of it, answers calls.

        Args:
            service: Name of the service; "": the server as a whole.
            timeout: In seconds. None: the client's timeout.

        Raises:
            ServerUnavailable: Nobody answers there.
            ConvserveError: See errors.py.
        """
        deadline = self._deadline(timeout)
        try:
            with self._calling(deadline):
                reply = self._health.Check(
                    health_pb2.HealthCheckRequest(service=service),
                    timeout=deadline.left_s(),
                    wait_for_ready=self._settings.wait_for_ready,
                )
        except ConvserveError as error:
            return health_from_error(error)
        return read_health(reply.status)

    def close(self) -> None:
        """Closes the connection; calls under way in other threads raise Cancelled."""
        self._closed = True
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline.after(
            self._settings.timeout_s if timeout is None else checked_timeout_s(timeout)
        )

    def _question(
        self, model: str | None, version: int | None, top_k: int | None, deadline: Deadline
    ) -> Question:
        checked_version = checked("version", version, bits=64)
        checked_top_k = checked("top_k", top_k, bits=32)
        named = model or self._settings.model or self._only_model
        if named is None:
            named = self._only_model = only_model(self._models(deadline))
        return Question(named, checked_version, checked_top_k)

    def _models(self, deadline: Deadline) -> list[ModelInfo]:
        with self._calling(deadline):
            reply = self._classifier.ListModels(
                classifier_pb2.ListModelsRequest(),
                timeout=deadline.left_s(),
                wait_for_ready=self._settings.wait_for_ready,
            )
        return read_models(reply)

    def _call(
        self, request: classifier_pb2.ClassifyRequest, deadline: Deadline
    ) -> classifier_pb2.ClassifyResponse:
        return self._classifier.Classify(
            request, timeout=deadline.left_s(), wait_for_ready=self._settings.wait_for_ready
        )

    def _call_all(
        self, calls: Calls, question: Question, deadline: Deadline
    ) -> list[classifier_pb2.ClassifyResponse]:
        replies: dict[int, classifier_pb2.ClassifyResponse] = {}
        flying: dict[int, grpc.Future[classifier_pb2.ClassifyResponse]] = {}
        landed: queue.SimpleQueue[int] = queue.SimpleQueue()

        def take_off(number: int, request: classifier_pb2.ClassifyRequest) -> None:
            call = self._classifier.Classify.future(
                request,
                timeout=deadline.left_s(),
                wait_for_ready=self._settings.wait_for_ready,
            )
            flying[number] = call
            call.add_done_callback(lambda _: landed.put(number))

        def land_one() -> None:
            number = landed.get()
            replies[number] = flying.pop(number).result()

        try:
            for number, batch in enumerate(calls):
                if len(flying) == self._settings.max_in_flight:
                    land_one()
                take_off(number, question.request(batch))
            while flying:
                land_one()
        finally:
            for call in flying.values():
                call.cancel()
        return [replies[number] for number in range(len(calls))]

    @contextmanager
    def _calling(self, deadline: Deadline) -> Iterator[None]:
        closed = f"the client of {self._settings.server} is closed"
        if self._closed:
            raise ClientClosed(closed)
        try:
            with translated(self._settings.server, deadline):
                yield
        except ModelNotFound:
            self._only_model = None  # It may have been replaced by another one.
            raise
        except ValueError as error:
            # What grpc raises if another thread closed the channel since the look above.
            if self._closed and not isinstance(error, ConvserveError):
                raise ClientClosed(closed) from error
            raise
