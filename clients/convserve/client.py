"""The client for programs without an event loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc
import numpy.typing as npt
from grpc_health.v1 import health_pb2, health_pb2_grpc

from convserve import forks
from convserve.arguments import seconds, text
from convserve.calls import Images, Question, split, split_images
from convserve.channel import channel_options
from convserve.dark_ground import DarkGround
from convserve.deadline import Deadline
from convserve.encoded import File
from convserve.errors import ClientClosed, ConvserveError, ModelNotFound
from convserve.flight import call_all
from convserve.health import Health, health_from_error, read_health
from convserve.ledger import Item, Ledger, Outcome
from convserve.model_choice import ModelChoice
from convserve.models import (
    ModelInfo,
    RefusedVersion,
    find_model,
    read_models,
    read_refused,
)
from convserve.pillow_pictures import has_pictures
from convserve.replies import read_replies
from convserve.results import Classification
from convserve.settings import (
    DEFAULT_TIMEOUT_S,
    MAX_BYTES_PER_CALL,
    MAX_IMAGES_PER_CALL,
    MAX_IN_FLIGHT,
    Settings,
    default_model,
    default_server,
)
from convserve.statuses import translated
from convserve.stream import Stream
from convserve_protos import classifier_pb2, classifier_pb2_grpc

if TYPE_CHECKING:
    from convserve_protos.classifier_pb2_grpc import ClassifierStub


@dataclass(frozen=True, slots=True)
class _Stubs:
    channel: grpc.Channel
    classifier: ClassifierStub
    health: Any  # grpcio-health-checking has no types.


class Client:
    """Asks a Convserve server what is in pictures.

    One client serves any number of threads; it holds one connection to each server behind the name.
    A client that was made before a fork serves the child if nothing was asked before it; otherwise
    all calls there raise ForkedProcess at once, those of other clients too.

        with Client("localhost:50051") as client:
            print(client.classify(digit).label)
    """

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
    ) -> None:
        """Makes a client; the connection is made when it is first needed.

        Args:
            server: HOST:PORT, or another form of address.checked_server. Several addresses behind
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

        Raises:
            InvalidRequest: An argument is not what is taken.
        """
        self._settings = Settings(
            server=default_server() if server is None else server,
            model=model or default_model(),
            timeout_s=timeout,
            wait_for_ready=wait_for_ready,
            max_images_per_call=max_images_per_call,
            max_bytes_per_call=max_bytes_per_call,
            max_in_flight=max_in_flight,
        )
        self._opened: _Stubs | None = None
        self._lock = threading.Lock()
        self._choice = ModelChoice(self._settings.model)
        self._ground = DarkGround()
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
                (RGB). Three dimensions are one image if the last is 1 or 3. For models of digits
                as MNIST has them: light strokes on black (0), which fill 20 x 20 of the 28 x 28;
                another ground brings answers at chance, and a UserWarning once for each client.
            model: Name of the model. None: the client's model.
            version: Its version. None: the newest that is loaded.
            top_k: Only the k most probable classes, 1 to the number of classes. None: all.
            timeout: Seconds for the whole request. None: the client's timeout.

        Returns:
            One result for each image, in order; that of a single image can be read from it
            directly.

        Raises:
            InvalidRequest: The pixels or an argument are not what is taken; or no model was named
                and several fit.
            ModelNotFound: No such model or version is loaded.
            DeadlineExceeded: There was no answer in time.
            ServerUnavailable: The server cannot be reached, is starting or shutting down.
            ServerBusy: The server's queue stayed full through all tries.
            ConvserveError: Whatever else went wrong; see errors.py.
        """
        calls = split(pixels, self._settings)
        deadline = self._deadline(timeout)
        answer = self._ask(calls, model, version, top_k, deadline)
        if self._ground.doubtful(calls):
            # Advice only: the answer is there, whether or not the models can be listed now.
            kind = ""
            with suppress(ConvserveError):
                kind = self._kind(model, version, deadline)
            self._ground.judge(calls, kind)
        return answer

    def classify_images(
        self,
        images: File | Sequence[File],
        *,
        model: str | None = None,
        version: int | None = None,
        top_k: int | None = None,
        timeout: float | None = None,
    ) -> Classification:
        """Classifies one picture file or many, which the server decodes.

        Split as in classify. Of several images, one that cannot be used has a BadImage in place of
        an answer.

        Args:
            images: One picture, or several in a sequence. Each is the bytes of a file or the Path
                of one, JPEG for models of photographs, JPEG or PNG for models of digits and of
                pixels; or a picture of Pillow, turned as its Exif orientation says and sent as
                PNG. For models of photographs it is sent as JPEG of quality 95, 4:4:4, which may
                change its values by a few levels; the bytes of the file it came from lose nothing.
                Pictures of Pillow cost one more call, which asks for the kind of the model. All
                files of a request are in memory at once.
            model: As for classify.
            version: As for classify.
            top_k: As for classify.
            timeout: As for classify.

        Raises:
            BadImage: The only image of the request cannot be used; its reason says why.
            InvalidRequest: Something is no picture, or an argument is not what is expected.
            MessageTooLarge: An image is larger than the server takes, or over 64 MiB.
            OSError: The file of a Path cannot be read.
            ConvserveError: As classify.
        """
        deadline = self._deadline(timeout)
        kind = self._kind(model, version, deadline) if has_pictures(images) else ""
        calls = split_images(images, self._settings, kind)
        return self._ask(calls, model, version, top_k, deadline)

    def stream(
        self,
        items: Iterable[Item],
        *,
        model: str | None = None,
        version: int | None = None,
        top_k: int | None = None,
        timeout: float | None = None,
    ) -> Iterator[tuple[int, Outcome]]:
        """Classifies images as they come, over one stream, and gives the answers as they finish.

        At most max_in_flight items have been taken and not yet given back, so memory stays flat.
        The items are read in another thread, so a slow source holds up no answer. Calls on a
        stream are not tried again. A loop that is left early leaves the stream open until close()
        of what this returns, or until nothing refers to it; it keeps no process from ending.

        Args:
            items: Each is one image or several and one message, not split: pixels as in classify,
                or the bytes or Paths of files as in classify_images. A picture of Pillow is pixels
                here.
            model: Name of the model. None: the client's model.
            version: Its version. None: the newest that is loaded.
            top_k: Only the k most probable classes. None: all.
            timeout: Longest wait for the answer to an item, in seconds. None: the client's.

        Yields:
            The number of the item, from 0, and its Classification, or the error that classify
            would have raised for it; the stream goes on after an error.

        Raises:
            InvalidRequest: An item is not what is taken, which was seen before it was sent.
            ConvserveError: The stream itself failed; see errors.py.
            Exception: Whatever reading the items raised.
        """
        deadline = self._deadline(timeout)
        questions = self._questions(model, version, top_k, deadline)
        ledger = Ledger(questions, self._settings, deadline.timeout_s)
        stream = Stream(items, ledger, self._settings.max_in_flight)
        with self._calling(deadline):
            call = self._stubs().classifier.StreamClassify(
                stream.requests(), wait_for_ready=self._settings.wait_for_ready
            )
            yield from stream.outcomes(call)

    def models(self, *, timeout: float | None = None) -> list[ModelInfo]:
        """Returns the models that the server has loaded, by name, the newest version first.

        Raises:
            ConvserveError: See errors.py.
        """
        return self._models(self._deadline(timeout))

    def refused(self, *, timeout: float | None = None) -> list[RefusedVersion]:
        """Returns the versions that the server has refused to load, and why.

        Raises:
            ConvserveError: See errors.py.
        """
        return read_refused(self._listing(self._deadline(timeout)))

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
                reply = self._stubs().health.Check(
                    health_pb2.HealthCheckRequest(service=text("service", service)),
                    timeout=deadline.left_s(),
                    wait_for_ready=self._settings.wait_for_ready,
                )
        except ConvserveError as error:
            return health_from_error(error)
        return read_health(reply.status)

    def close(self) -> None:
        """Closes the connection; calls under way in other threads raise Cancelled."""
        self._closed = True
        if forks.is_child():
            return
        with self._lock:
            if self._opened is not None:
                self._opened.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _stubs(self) -> _Stubs:
        # Not before the first call, so that processes forked before it have each their own.
        forks.use()
        with self._lock:
            if self._closed:
                raise ClientClosed(self._closed_message())
            if self._opened is None:
                server = self._settings.server
                channel = grpc.insecure_channel(server, options=channel_options(server))
                forks.hold(channel)
                self._opened = _Stubs(
                    channel,
                    classifier_pb2_grpc.ClassifierStub(channel),
                    health_pb2_grpc.HealthStub(channel),
                )
            return self._opened

    def _ask(
        self,
        calls: Sequence[Images],
        model: str | None,
        version: int | None,
        top_k: int | None,
        deadline: Deadline,
    ) -> Classification:
        question = self._question(calls, model, version, top_k, deadline)
        with self._calling(deadline):
            stub = self._stubs().classifier
            replies = call_all(stub, calls, question, deadline, self._settings)
        return read_replies(replies, list(map(len, calls)), question, deadline.spent_us())

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline.after(
            self._settings.timeout_s if timeout is None else seconds("timeout", timeout)
        )

    def _question(
        self,
        calls: Sequence[Images],
        model: str | None,
        version: int | None,
        top_k: int | None,
        deadline: Deadline,
    ) -> Question:
        asked = Question.of(model, version, top_k)
        name = self._choice.named(asked.model) or self._choice.remembered(asked.version, calls)
        if name is None:
            loaded = self._models(deadline)
            name = self._choice.among(loaded, asked.version, calls)
        return replace(asked, model=name)

    def _questions(
        self, model: str | None, version: int | None, top_k: int | None, deadline: Deadline
    ) -> Callable[[Images], Question]:
        """Returns what makes the question about each item of a stream."""
        asked = Question.of(model, version, top_k)
        if (name := self._choice.named(asked.model)) is not None:
            named = replace(asked, model=name)
            return lambda _: named
        loaded = self._models(deadline)
        return lambda images: replace(
            asked, model=self._choice.among(loaded, asked.version, [images])
        )

    def _kind(self, model: str | None, version: int | None, deadline: Deadline) -> str:
        """Returns the kind of the model for pictures of Pillow, which decides how they are sent."""
        asked = Question.of(model, version, None)
        loaded = self._models(deadline)
        name = self._choice.named(asked.model) or self._choice.of_pictures(loaded, asked.version)
        return find_model(loaded, name, asked.version).kind

    def _models(self, deadline: Deadline) -> list[ModelInfo]:
        return read_models(self._listing(deadline))

    def _listing(self, deadline: Deadline) -> classifier_pb2.ListModelsResponse:
        with self._calling(deadline):
            return self._stubs().classifier.ListModels(
                classifier_pb2.ListModelsRequest(),
                timeout=deadline.left_s(),
                wait_for_ready=self._settings.wait_for_ready,
            )

    @contextmanager
    def _calling(self, deadline: Deadline) -> Iterator[None]:
        if self._closed:
            raise ClientClosed(self._closed_message())
        try:
            with translated(self._settings.server, deadline):
                yield
        except ModelNotFound:
            self._choice.forget()  # It may have been replaced by another one.
            raise
        except ValueError as error:
            # What grpc raises if another thread closed the channel since the look above.
            if self._closed and not isinstance(error, ConvserveError):
                raise ClientClosed(self._closed_message()) from error
            raise

    def _closed_message(self) -> str:
        return f"the client of {self._settings.server} is closed"
