"""A real gRPC server whose answers a test decides."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from convserve_protos import bundle_pb2, classifier_pb2, classifier_pb2_grpc
from tests.recorder import Recorder

LABELS = [str(digit) for digit in range(10)]
BROKEN = b"broken"  # Files that begin so cannot be decoded.
PATIENCE_S = 60.0  # No test waits for longer, however busy the machine is.

Answer = Callable[[classifier_pb2.ClassifyRequest], classifier_pb2.ClassifyResponse]
StreamAnswer = Callable[
    [Iterator[classifier_pb2.StreamClassifyRequest]],
    Iterator[classifier_pb2.StreamClassifyResponse],
]


class Failure(Exception):
    """Raised by an answer: the call ends with this status."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str = "scripted",
        details: Sequence[Message] = (),
        trailers: Sequence[tuple[str, str | bytes]] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status_pb2.Status(code=code.value[0], message=message)
        for detail in details:
            self.status.details.add().Pack(detail)
        self.trailers = list(trailers)
        if details:
            self.trailers.append(("grpc-status-details-bin", self.status.SerializeToString()))


def broken_image(index: int, reason: str, why: str) -> Failure:
    """As the server says of a file that cannot be decoded."""
    field = f"encoded.images[{index}]"
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field=field, description=why)
    info = error_details_pb2.ErrorInfo(domain="convserve", reason=reason)
    return Failure(grpc.StatusCode.INVALID_ARGUMENT, f"{field}: {why}", [bad, info])


def images_of(request: classifier_pb2.ClassifyRequest) -> npt.NDArray[np.uint8]:
    pixels = request.pixels
    return np.frombuffer(pixels.data, np.uint8).reshape(
        pixels.count, pixels.height, pixels.width, pixels.channels
    )


def expected_label(image: npt.NDArray[np.uint8]) -> str:
    return LABELS[int(image.sum()) % len(LABELS)]


def expected_probability(image: npt.NDArray[np.uint8]) -> float:
    """Tells images apart that have the same label."""
    return 0.5 + float(image.mean()) / 600


def prediction(
    image: npt.NDArray[np.uint8], request: classifier_pb2.ClassifyRequest
) -> classifier_pb2.Prediction:
    best = LABELS.index(expected_label(image))
    rest = (1 - expected_probability(image)) / (len(LABELS) - 1)
    probabilities = np.full(len(LABELS), rest)
    probabilities[best] = expected_probability(image)
    if not request.HasField("top_k"):
        return classifier_pb2.Prediction(probabilities=probabilities.tolist())
    classes = np.argsort(-probabilities, kind="stable")[: request.top_k]
    return classifier_pb2.Prediction(
        probabilities=probabilities[classes].tolist(), classes=classes.tolist()
    )


def answer(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
    """What the server answers by default: computed from the pixels or files alone."""
    if request.HasField("encoded"):
        return answer_encoded(request)
    return classifier_pb2.ClassifyResponse(
        id=request.id,
        model=request.model,
        version=request.version if request.HasField("version") else 7,
        labels=LABELS,
        results=[
            classifier_pb2.ImageResult(prediction=prediction(image, request))
            for image in images_of(request)
        ],
        timings=classifier_pb2.Timings(queue_us=100, compute_us=10),
    )


def answer_encoded(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
    """The label of a file is by its bytes; a broken one fails alone, as the server does it."""
    files = request.encoded.images
    results = []
    for index, data in enumerate(files):
        if data.startswith(BROKEN):
            failure = broken_image(index, "TRUNCATED", "the JPEG is truncated")
            if len(files) == 1:
                raise failure
            results.append(classifier_pb2.ImageResult(error=failure.status))
        else:
            row = prediction(np.frombuffer(data, np.uint8), request)
            results.append(classifier_pb2.ImageResult(prediction=row))
    return classifier_pb2.ClassifyResponse(
        id=request.id,
        model=request.model,
        version=7,
        labels=LABELS,
        results=results,
        timings=classifier_pb2.Timings(queue_us=100, decode_us=1000, compute_us=10),
    )


def model(
    name: str,
    version: int = 1,
    kind: bundle_pb2.ImageKind.ValueType = bundle_pb2.IMAGE_KIND_DIGITS,
    size: tuple[int, int, int] = (28, 28, 1),
    labels: Sequence[str] = LABELS,
) -> classifier_pb2.Model:
    height, width, channels = size
    manifest = bundle_pb2.Manifest(
        format=1,
        name=name,
        labels=labels,
        input=bundle_pb2.InputSpec(height=height, width=width, channels=channels, kind=kind),
        metrics={"accuracy": 0.9912, "loss": 0.027},
        parameters=93322,
    )
    manifest.created.FromDatetime(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    return classifier_pb2.Model(
        name=name,
        version=version,
        manifest=manifest,
        execution_provider="CPUExecutionProvider",
    )


class ScriptedServer(classifier_pb2_grpc.ClassifierServicer):
    """Attributes are set by a test before it calls, and read afterwards.

    Attributes:
        answer: Answers each Classify, and by default each request of a stream.
        answer_stream: Answers a whole stream.
        models: What ListModels lists as loaded.
        refused: What it lists as refused.
        before_list: Returns how a ListModels ends, or None for the list.
        metadata: What came beside each Classify and StreamClassify, of keys that are ours.
        health: Status by name of the service.
        requests: The Classify requests that came, retries too; the first 10,000 are kept.
        peers: The connection that each of them came over.
        lists: How often ListModels was called.
        most_in_flight: Most Classify calls at one time.
        answered: Released once for each Classify call that is over.
        abandoned: Released once for each Classify call that its caller gave up.
        streams_ended: Released once for each stream that is over, however it ended.
    """

    def __init__(
        self, address: str = "127.0.0.1:0", tls: grpc.ServerCredentials | None = None
    ) -> None:
        self.answer: Answer = answer
        self.answer_stream: StreamAnswer = self._answer_each
        self.models = [model("mnist")]
        self.refused: list[classifier_pb2.RefusedVersion] = []
        self.before_list: Callable[[], Failure | None] = lambda: None
        self.metadata = Recorder[dict[str, str]]()
        self.health: dict[str, int] = {"": health_pb2.HealthCheckResponse.SERVING}
        self.requests = Recorder[classifier_pb2.ClassifyRequest]()
        self.peers = Recorder[str]()
        self.lists = 0
        self.most_in_flight = 0
        self.answered = threading.Semaphore(0)
        self.abandoned = threading.Semaphore(0)
        self.streams_ended = threading.Semaphore(0)
        self._in_flight = 0
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(24))
        classifier_pb2_grpc.add_ClassifierServicer_to_server(self, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(_Health(self), self._server)
        port = (
            self._server.add_insecure_port(address)
            if tls is None
            else self._server.add_secure_port(address, tls)
        )
        self.address = f"127.0.0.1:{port}"
        self._server.start()

    def stop(self) -> None:
        assert self._server.stop(grace=0).wait(PATIENCE_S)

    def Classify(
        self, request: classifier_pb2.ClassifyRequest, context: grpc.ServicerContext
    ) -> classifier_pb2.ClassifyResponse:
        finished = threading.Event()
        context.add_callback(lambda: None if finished.is_set() else self.abandoned.release())
        with self._lock:
            self.requests.append(request)
            self.peers.append(context.peer())
            self.metadata.append(_ours(context))
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            return self.answer(request)
        except Failure as failure:
            context.set_trailing_metadata(tuple(failure.trailers))
            context.abort(failure.code, str(failure))
        finally:
            finished.set()
            self.answered.release()
            with self._lock:
                self._in_flight -= 1

    def StreamClassify(
        self,
        request_iterator: Iterator[classifier_pb2.StreamClassifyRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[classifier_pb2.StreamClassifyResponse]:
        context.add_callback(self.streams_ended.release)
        self.metadata.append(_ours(context))
        try:
            yield from self.answer_stream(request_iterator)
        except Failure as failure:
            context.set_trailing_metadata(tuple(failure.trailers))
            context.abort(failure.code, str(failure))

    def ListModels(
        self, request: classifier_pb2.ListModelsRequest, context: grpc.ServicerContext
    ) -> classifier_pb2.ListModelsResponse:
        self.lists += 1
        if (failure := self.before_list()) is not None:
            context.set_trailing_metadata(tuple(failure.trailers))
            context.abort(failure.code, str(failure))
        return classifier_pb2.ListModelsResponse(models=self.models, refused=self.refused)

    def stream_response(
        self, message: classifier_pb2.StreamClassifyRequest
    ) -> classifier_pb2.StreamClassifyResponse:
        try:
            response = self.answer(message.request)
        except Failure as failure:
            return classifier_pb2.StreamClassifyResponse(
                id=message.request.id, error=failure.status
            )
        return classifier_pb2.StreamClassifyResponse(id=message.request.id, response=response)

    def _answer_each(
        self, messages: Iterator[classifier_pb2.StreamClassifyRequest]
    ) -> Iterator[classifier_pb2.StreamClassifyResponse]:
        return (self.stream_response(message) for message in messages)


def _ours(context: grpc.ServicerContext) -> dict[str, str]:
    pairs = context.invocation_metadata()
    return {
        key: str(value) for key, value in pairs if key.startswith(("convserve-", "authorization"))
    }


class _Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    def __init__(self, server: ScriptedServer) -> None:
        self._server = server

    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.service not in self._server.health:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service}")
        return health_pb2.HealthCheckResponse(status=self._server.health[request.service])
