"""Measures what each stage of a call costs inside a worker, without the network.

    python -m benchmarks.serving.microbench --models models --model mnist

Calls are handed to a worker's router as a transport does it, on one thread; the engine has one
thread. What a call costs beyond the sum, by benchmarks.serving, is the transport: HTTP/2, waking
threads, the GIL.
"""

import argparse
import dataclasses
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from benchmarks.harness.answers import CLASSIFY, Questions
from benchmarks.harness.bundles import Bundle
from benchmarks.harness.command import (
    add_models_option,
    add_run_options,
    execute,
    new_parser,
    whole,
)
from benchmarks.harness.report import heading, machine, write_json
from benchmarks.harness.table import grid
from convserve_server.core.batch_request import Answer, BatchRequest
from convserve_server.core.batch_times import BatchTimes
from convserve_server.core.batcher import Batcher
from convserve_server.core.classifier import Classifier
from convserve_server.core.decode_pool import DecodePool
from convserve_server.core.models import ModelVersion
from convserve_server.core.policies import ModelPolicy
from convserve_server.core.preparer import Preparer
from convserve_server.core.repository import ModelLimits, Repository, Work
from convserve_server.engines.base import Engine, Pixels, Probabilities
from convserve_server.engines.bundles import load_bundle
from convserve_server.engines.loader import EngineOptions, load_engine
from convserve_server.process.local_control import LocalControl
from convserve_server.protocols.base import Call, Caller, Failure
from convserve_server.protocols.convserve_v1.service import ConvserveV1
from convserve_server.protocols.router import Router
from convserve_server.protocols.streams import StreamBudget
from convserve_server.telemetry.observer import NO_OBSERVER, Observer
from convserve_server.telemetry.shared_statistics import SharedStatistics

_PACKAGES = ("convserve", "numpy", "onnxruntime", "protobuf")
_BATCHES = ((1, 1), (16, 1), (64, 1), (1, 64))
_LIMITS = ModelLimits(64, 4096, 2**28, 0.0, 2**26, 2**28)
#: Of calls that are refused, s.
_DEADLINE_S = 0.1
#: Of one repetition, s; the least of several counts.
_SPAN_S = 0.05


@dataclass(frozen=True)
class Stage:
    """What one stage costs, µs a call.

    Attributes:
        name: of the stage.
        calls: in a batch.
        images: in each call.
    """

    name: str
    calls: int
    images: int
    us_a_call: float


class _KeepingBatcher:
    """In place of a batcher: keeps the requests of a batch."""

    def __init__(self) -> None:
        self.requests: list[BatchRequest] = []

    def submit(self, request: BatchRequest, **_: object) -> None:
        self.requests.append(request)


class _OneModel(Repository):
    """A repository of one model, whatever is asked for."""

    def __init__(self, model: ModelVersion) -> None:
        super().__init__(lambda _: _LIMITS, [0])
        self._model = model

    def submit(self, work: Work) -> None:
        work.start(self._model)

    def versions(self, name: str) -> Mapping[int, ModelVersion]:
        del name
        return {self._model.version: self._model}


class _UnsentCall(Call):
    """A call whose answer is forgotten."""

    __slots__ = ()

    def caller(self) -> Caller:
        return Caller("peer", ())

    def send(self, payload: bytes) -> None:
        pass

    def send_failure(self, failure: Failure) -> None:
        raise AssertionError(failure)


class _RefusedCall(_UnsentCall):
    """A call whose refusal is forgotten."""

    __slots__ = ()

    def send(self, payload: bytes) -> None:
        raise AssertionError("expected a refusal, got an answer")

    def send_failure(self, failure: Failure) -> None:
        pass


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.serving.microbench", __doc__)
    add_models_option(result)
    result.add_argument("--model", default="mnist", metavar="NAME", help="[default: mnist]")
    result.add_argument(
        "--repeats", type=whole(1), default=20, metavar="N", help="of each stage [default: 20]"
    )
    add_run_options(result, rounds=1, measured="stage")
    return result


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    bundle = Bundle.newest(arguments.models, arguments.model)
    questions = Questions.of_pixels(bundle, 64)
    control = LocalControl(arguments.models, lambda _: ModelPolicy())
    repository = Repository(lambda _: _LIMITS, control.switch)
    options = EngineOptions("cpu", 1)
    preparer = Preparer(
        lambda _, path, batch_s: load_bundle(
            path, lambda path: load_engine(path, options), batch_s
        ),
        repository,
        control.on_prepared,
        control.on_failed,
    )
    control.attach(repository, preparer)
    control.scan()
    try:
        stages = [
            stage
            for calls, images in _BATCHES
            for stage in _stages(repository, questions, calls, images, arguments.repeats)
        ]
        refused = _refused(repository, questions, arguments.repeats)
    finally:
        repository.close(1.0)
    on = machine(_PACKAGES)
    details = (f"{bundle.model}/{bundle.version}", f"least of {arguments.repeats}")
    handled, early = (stage.us_a_call for stage in refused)
    about = (
        f"A call that is refused, for it has too little time: {handled:.1f} µs;"
        f" while others are, before it is made: {early:.1f} µs."
    )
    print(heading(on, "one thread", details), _table(stages), about, sep="\n\n")
    write_json(arguments.json, on, {"model": bundle.model}, stages=[*stages, *refused])


def _stages(
    repository: Repository, questions: Questions, calls: int, images: int, repeats: int
) -> list[Stage]:
    payload = questions.request(0, images).SerializeToString()
    decoding = DecodePool(1, 4096, 2**28)
    loaded = repository.get(questions.model, None)
    batcher = _KeepingBatcher()
    model = dataclasses.replace(loaded, batcher=cast("Batcher", batcher))
    classifier = Classifier(_OneModel(model), decoding, 256)
    router = Router([ConvserveV1(classifier, StreamBudget(2**26))])
    engine = cast("Engine", loaded.engine)
    pieces = [np.asarray(questions.images)[:images]] * calls
    rows = engine.run(pieces)

    def begin() -> None:
        batcher.requests.clear()
        for _ in range(calls):
            router.handle(_UnsentCall(CLASSIFY, payload, None, "peer"))

    def begin_and_answer() -> None:
        begin()
        for call, request in enumerate(batcher.requests):
            request.finish(Answer(rows[call * images : (call + 1) * images], 0.0, 0.0))

    taken = _least_s(begin, repeats)
    answered = _least_s(begin_and_answer, repeats) - taken
    decoding.close()
    run, gather = _engine(engine, pieces, repeats)
    counted = _counting(calls, images, repeats)
    costs = {
        "request: parse, check, pixels without a copy": taken,
        "batch: queue, lock, form, give out rows": _batching(pieces, rows, repeats),
        "statistics: count the batch": counted,
        "engine: gather the pixels": gather,
        "engine: one run of ONNX Runtime": run,
        "answer: serialize, hand to the transport": answered,
    }
    return [Stage(name, calls, images, 1e6 * cost / calls) for name, cost in costs.items()]


def _refused(repository: Repository, questions: Questions, repeats: int) -> list[Stage]:
    """What a call costs that is refused, from the transport and back: handled, and before that."""
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
    gathered = np.empty_like(together[0])
    return run, _least_s(lambda: np.concatenate(pieces, out=gathered), repeats)


def _batching(pieces: Sequence[Pixels], rows: Probabilities, repeats: int) -> float:
    """What the batcher itself costs for these requests: the engine and the answers cost nothing."""
    batcher = Batcher(lambda _: rows, max_batch=len(rows), max_queue=4096)
    try:

        def once() -> None:
            for piece in pieces:
                batcher._queue.append(BatchRequest(piece, None, lambda _: None))
            _, batch = batcher._queue.take(time.monotonic())
            assert batch is not None
            batcher._execute(batch)

        return _least_s(once, repeats)
    finally:
        batcher.close()


def _counting(calls: int, images: int, repeats: int) -> float:
    """What it costs to count a batch of so many calls, beside an observer that does nothing."""
    arrived = [0.998 + 0.00001 * call for call in range(calls)]

    def taken(observer: Observer) -> float:
        def once() -> None:
            observer.batch("mnist/1", calls * images, 0.001, arrived, 0.002, 1.0)

        return _least_s(once, repeats)

    return taken(SharedStatistics()) - taken(NO_OBSERVER)


def _least_s(action: Callable[[], object], repeats: int) -> float:
    """Seconds of an action, the least of several means."""
    action()
    started = time.perf_counter()
    action()
    times = max(1, round(_SPAN_S / (time.perf_counter() - started)))
    means = []
    for _ in range(repeats):
        started = time.perf_counter()
        for _ in range(times):
            action()
        means.append((time.perf_counter() - started) / times)
    return min(means)


def _table(stages: Sequence[Stage]) -> str:
    cases = list(dict.fromkeys((stage.calls, stage.images) for stage in stages))
    names = list(dict.fromkeys(stage.name for stage in stages))
    found = {(stage.name, stage.calls, stage.images): stage.us_a_call for stage in stages}
    lines = [[name, *(f"{found[name, *case]:.2f}" for case in cases)] for name in names]
    sums = [sum(found[name, *case] for name in names) for case in cases]
    lines.append(["together", *(f"{total:.1f}" for total in sums)])
    header = [
        "µs a call",
        *(f"{calls} calls of {images} in a batch" for calls, images in cases),
    ]
    return grid(header, lines, {"µs a call"})


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))
