"""The stages of a call in a worker, each measured on one thread, without the network."""

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from pygrpc_native import EVENT_CALL

from benchmarks.harness.answers import CLASSIFY, Questions
from convserve_server.core.batch_request import BatchRequest
from convserve_server.core.batch_times import BatchTimes
from convserve_server.core.batcher import Batcher
from convserve_server.core.classifier import Classifier
from convserve_server.core.decode_pool import DecodePool
from convserve_server.core.models import ModelVersion, VersionChoice
from convserve_server.core.repository import ModelLimits, Repository
from convserve_server.engines.base import Engine, Pixels, Probabilities
from convserve_server.engines.cpu import CpuEngine
from convserve_server.protocols.base import Call, Caller, Failure
from convserve_server.protocols.convserve_v1.service import ConvserveV1
from convserve_server.protocols.router import Router
from convserve_server.protocols.streams import StreamBudget
from convserve_server.telemetry.shared_statistics import SharedStatistics
from convserve_server.transports.base import TransportOptions
from convserve_server.transports.native import NativeTransport

if TYPE_CHECKING:
    from pygrpc_native import NativeGrpcFront

_LIMITS = ModelLimits(64, 4096, 2**28, 0.0, 2**26, 2**28)
#: Of calls that are refused, s.
_DEADLINE_S = 0.1
#: Of one repetition, s; the least of several counts.
_SPAN_S = 0.01
#: Header fields of a call by h2load, and connections by which the calls come.
_METADATA = (("content-type", "application/grpc"), ("te", "trailers"), ("user-agent", "h2load"))
_CONNECTIONS = 4


@dataclass(frozen=True)
class Stage:
    """What one stage costs, µs a call.

    Attributes:
        name: of the stage.
        calls: in a batch; of what is measured under load, callers.
        images: in each call.
        us_a_call: of CPU.
    """

    name: str
    calls: int
    images: int
    us_a_call: float


class _StillBatcher(Batcher):
    """A batcher whose threads do nothing: batches are formed and run here."""

    def _loop(self) -> None:
        pass


class _Library:
    """In place of the library: forgets the answers."""

    def respond(self, number: int, payload: bytes) -> bool:
        del number, payload
        return True


class _OneModel(Repository):
    """A repository of one model, whatever is asked for."""

    def __init__(self, model: ModelVersion) -> None:
        super().__init__(lambda _: _LIMITS, [0])
        self._model = model

    def get(self, name: str, version: VersionChoice) -> ModelVersion:
        del name, version
        return self._model

    def versions(self, name: str) -> Mapping[int, ModelVersion]:
        del name
        return {self._model.version: self._model}


class _RefusedCall(Call):
    """A call whose refusal is forgotten."""

    __slots__ = ()

    def caller(self) -> Caller:
        return Caller("peer", ())

    def send(self, payload: bytes) -> bool:
        raise AssertionError("expected a refusal, got an answer")

    def send_failure(self, failure: Failure) -> None:
        pass


def stages_of(
    repository: Repository, questions: Questions, calls: int, images: int, repeats: int
) -> list[Stage]:
    """Measures calls that share a batch, from the library's event to its answer.

    Args:
        repository: of the model.
        questions: that the calls ask.
        calls: in the batch.
        images: of each call.
        repeats: of each stage; the least counts.
    """
    payload = questions.request(0, images).SerializeToString()
    decoding = DecodePool(1, 4096, 2**28)
    loaded = repository.get(questions.model, None)
    engine = cast("Engine", loaded.engine)
    pieces = [np.asarray(questions.images)[:images]] * calls
    rows = engine.run(pieces)
    counts = SharedStatistics()
    batcher = _StillBatcher(
        lambda _: rows, max_batch=len(rows), max_queue=4096, times=BatchTimes({len(rows): 0.002}),
        observer=counts, model="mnist/1",
    )  # fmt: skip
    model = dataclasses.replace(loaded, batcher=batcher)
    classifier = Classifier(_OneModel(model), decoding, 256)
    transport = NativeTransport(TransportOptions("127.0.0.1", 0, 2**26, 60, 0.0, False))
    transport._router = Router([ConvserveV1(classifier, StreamBudget(2**26))], observer=counts)
    transport._methods = (CLASSIFY,)
    transport.front = cast("NativeGrpcFront", _Library())
    events = [
        (EVENT_CALL, number, 0, payload, None, (_METADATA, f"peer {number % _CONNECTIONS}", None))
        for number in range(calls)
    ]

    def begin(_before: object) -> None:
        now = time.monotonic()
        for event in events:
            transport._handle(event, now, idle_caller=False)

    def form(_before: object) -> Any:
        _, batch = batcher._queue.take(time.monotonic())
        return batch

    taken, formed, answered = _least_s_of_each((begin, form, batcher._execute), repeats)
    batcher.close()
    decoding.close()
    run, gather = _engine(engine, pieces, repeats)
    costs = {
        "request: from the library's event to the queue": taken,
        "batch: take the calls whose turn it is": formed,
        "engine: gather the pixels": gather,
        "engine: one run of ONNX Runtime": run,
        "answer: give out rows, serialize, hand to the library, count": answered,
    }
    return [Stage(name, calls, images, 1e6 * cost / calls) for name, cost in costs.items()]


def refused_of(repository: Repository, questions: Questions, repeats: int) -> list[Stage]:
    """Measures a call that is refused, from the transport and back: handled, and before that."""
    ended = threading.Event()

    loaded = repository.get(questions.model, None)
    classes = loaded.description.classes

    def run(images: Sequence[Pixels]) -> Probabilities:
        ended.wait()
        return np.zeros((sum(map(len, images)), classes), np.float32)

    # A batch of a minute runs, and more wait than can be done within the deadline.
    times = BatchTimes({1: 0.001, 64: 60.0})
    batcher = Batcher(run, max_batch=64, max_queue=4096, times=times)
    model = dataclasses.replace(loaded, batcher=batcher)
    served = _OneModel(model)
    decoding = DecodePool(1, 4096, 2**28)
    router = Router([ConvserveV1(Classifier(served, decoding, 256), StreamBudget(2**26))])
    payload = questions.request(0, 1).SerializeToString()
    pixels = np.asarray(questions.images)[:1]
    waiting = [BatchRequest(pixels, None, lambda _: None, "peer") for _ in range(256)]
    for request in waiting:
        batcher.submit(request)
    try:

        def once() -> None:
            deadline = time.monotonic() + _DEADLINE_S
            router.handle(_RefusedCall(CLASSIFY, payload, deadline, "peer"))

        def early() -> None:
            now = time.monotonic()
            assert router.refusal(CLASSIFY, payload, "peer", now + _DEADLINE_S, now) is not None

        handled_s = _least_s(once, repeats)
        early_s = _least_s(early, repeats)
        router.count_refused()
        return [
            Stage("a call that is refused", 1, 1, 1e6 * handled_s),
            Stage("a call that is refused before it is made", 1, 1, 1e6 * early_s),
        ]
    finally:
        for request in waiting:
            batcher.cancel(request)
        ended.set()
        batcher.close()
        decoding.close()


def _engine(engine: Engine, pieces: Sequence[Pixels], repeats: int) -> tuple[float, float]:
    """What a run costs on pixels that lie together, and what more if they do not."""
    together = [np.concatenate(pieces)]
    run = _least_s(lambda: engine.run(together), repeats)
    if len(pieces) == 1:
        return run, 0.0
    gather = cast("CpuEngine", engine)._joined
    return run, _least_s(lambda: gather(pieces), repeats)


def _least_s(action: Callable[[], object], repeats: int) -> float:
    """Seconds of CPU that an action takes this thread, the least of several means."""
    action()
    started = time.thread_time()
    action()
    times = max(1, round(_SPAN_S / (time.thread_time() - started)))
    means = []
    for _ in range(repeats):
        started = time.thread_time()
        for _ in range(times):
            action()
        means.append((time.thread_time() - started) / times)
    return min(means)


def _least_s_of_each(actions: Sequence[Callable[[Any], Any]], repeats: int) -> tuple[float, ...]:
    """Seconds of actions that follow each other, each given what the last one returned."""
    spans = [0.0] * len(actions)
    least = [float("inf")] * len(actions)
    for repeat in range(1 + repeats):
        until = time.perf_counter() + _SPAN_S
        times = 0
        spans = [0.0] * len(actions)
        while time.perf_counter() < until:
            result: Any = None
            for index, action in enumerate(actions):
                started = time.perf_counter()
                result = action(result)
                spans[index] += time.perf_counter() - started
            times += 1
        if repeat:  # the first one warms up
            least = [min(one, span / times) for one, span in zip(least, spans, strict=True)]
    return tuple(least)
