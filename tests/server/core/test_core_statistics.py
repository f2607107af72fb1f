"""What the core reports of requests and batches, as it is counted."""

import queue
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from convserve_protos import classifier_pb2 as pb
from convserve_server.core.batch_request import Answer, BatchRequest
from convserve_server.core.batch_times import BatchTimes
from convserve_server.core.batcher import Batcher
from convserve_server.core.errors import DeadlinePassed, InternalFault, QueueFull, ServeError
from convserve_server.core.jobs import Priority
from convserve_server.telemetry.shared_statistics import SharedStatistics
from convserve_server.telemetry.statistics import VersionStatistics
from tests.jpegs import jpeg_of
from tests.server.conftest import WAIT_S, Serve, Served, request_for
from tests.server.gated_engine import Caller, GatedEngine


class Counted:
    """A batcher of batches of up to 4 images, on a gated engine, and what it has counted."""

    def __init__(self) -> None:
        self.engine = GatedEngine()
        self.statistics = SharedStatistics()
        self.batcher = Batcher(
            self.engine.run,
            max_batch=4,
            max_queue=8,
            # A minute a batch: who has less time is refused.
            times=BatchTimes({1: 60.0, 4: 60.0}),
            observer=self.statistics,
            model="digits/1",
        )

    def submit(self, *counts: int) -> list[Caller]:
        """Submit requests of so many images each."""
        callers = [Caller(number, count) for number, count in enumerate(counts)]
        for caller in callers:
            self.batcher.submit(caller.request)
        return callers

    @property
    def version(self) -> VersionStatistics:
        (version,) = self.statistics.versions()
        return version


@pytest.fixture
def counted() -> Iterator[Counted]:
    made = Counted()
    yield made
    made.engine.open()
    made.batcher.close()
    assert made.batcher.join(WAIT_S)


def test_requests_and_their_batches_are_counted_before_they_are_answered(counted: Counted) -> None:
    """As the answers say: who has one sees himself in the counts."""
    seen: list[int] = []
    over: queue.Queue[Answer | ServeError] = queue.Queue()

    def done(outcome: Answer | ServeError) -> None:
        seen.append(counted.version.success.count)
        over.put(outcome)

    for count in (1, 3):
        pixels = np.full((count, 1, 1, 4), 255, np.uint8)
        counted.batcher.submit(BatchRequest(pixels, None, done))
        assert len(counted.engine.entered()) == count
        counted.engine.let_go()
    answers = [over.get(timeout=WAIT_S) for _ in range(2)]
    assert seen == [1, 2]
    found = counted.version
    assert (found.rows, found.batches, found.fail.count) == (4, 2, 0)
    assert {size: each.count for size, each in found.by_size.items()} == {1: 1, 3: 1}
    waited = sum(answer.queue_s for answer in answers if isinstance(answer, Answer))
    computed = sum(answer.compute_s for answer in answers if isinstance(answer, Answer))
    assert found.queue.ns == pytest.approx(1e9 * waited, abs=100)
    assert found.compute.ns == pytest.approx(1e9 * computed, abs=100)
    assert found.success.ns == pytest.approx(1e9 * (waited + computed), abs=200)
    assert found.compute.ns == pytest.approx(sum(one.ns for one in found.by_size.values()), abs=2)


def test_request_in_several_batches_is_one_request(counted: Counted) -> None:
    (large,) = counted.submit(7)
    for expected in (4, 3):
        assert len(counted.engine.entered()) == expected
        counted.engine.let_go()
    answer = large.answer()
    found = counted.version
    assert (found.rows, found.batches) == (7, 2)
    assert found.success.count == found.queue.count == found.compute.count == 1
    assert found.compute.ns == pytest.approx(1e9 * answer.compute_s, abs=100)
    assert found.success.ns > found.compute.ns


def test_fault_of_the_engine_fails_each_request_and_counts_no_batch(counted: Counted) -> None:
    (first,) = counted.submit(1)
    counted.engine.entered()
    others = counted.submit(1, 1)
    counted.engine.let_go()
    first.answer()
    counted.engine.entered()
    counted.engine.let_go(ValueError("broken"))
    assert all(isinstance(other.outcome(), InternalFault) for other in others)
    found = counted.version
    assert (found.success.count, found.fail.count, found.batches) == (1, 2, 1)
    assert found.fail.ns > 0


def test_request_that_is_dropped_has_failed_and_one_that_is_cancelled_has_not(
    counted: Counted,
) -> None:
    (first,) = counted.submit(1)
    counted.engine.entered()
    late = Caller(1, deadline=0.0)
    counted.batcher.submit(late.request, admitted=True)
    (gone,) = counted.submit(1)
    counted.batcher.cancel(gone.request)
    counted.engine.let_go()
    first.answer()
    assert isinstance(late.outcome(), DeadlinePassed)
    assert (counted.version.success.count, counted.version.fail.count) == (1, 1)


def test_calls_that_are_refused_before_they_are_parsed_are_counted_with_the_next_batch(
    counted: Counted,
) -> None:
    counted.submit(4)
    counted.engine.entered()
    waiting = counted.submit(8)
    refused = 3
    for _ in range(refused):
        refusal = counted.batcher.refusal_of_any("", Priority.INTERACTIVE, None, 0.0)
        assert isinstance(refusal, QueueFull)
        counted.batcher.note_refusal()
    counted.engine.open()
    waiting[0].answer()
    assert counted.version.fail.count == refused
    counted.batcher.note_refusal()
    counted.submit(1)[0].answer()
    # It was reported before the answer, and the three no more than once.
    assert counted.version.fail.count == refused + 1


def only(served: Served) -> VersionStatistics:
    (version,) = served.worker.statistics.versions()
    return version


def test_calls_to_a_worker_are_counted_by_the_version_that_they_reach(
    serve: Serve, front: str
) -> None:
    served = serve(front)
    assert only(served) == VersionStatistics("mnist", 1)
    served.classify(request_for(1, 2, 3)).result()
    assert (only(served).rows, only(served).success.count) == (3, 1)
    wrong = pb.Pixels(count=1, height=2, width=2, channels=1, data=b"1234")
    for request in (
        pb.ClassifyRequest(model="mnist", pixels=wrong),
        # These reach no version.
        pb.ClassifyRequest(model="none"),
        request_for(1, version=7),
    ):
        with pytest.raises(grpc.RpcError):
            served.classify(request).result()
    assert (only(served).fail.count, only(served).success.count) == (1, 1)


def test_files_are_counted_with_the_time_to_decode_them(serve: Serve) -> None:
    served = serve(photos=True)

    def ask(*files: bytes) -> None:
        encoded = pb.EncodedImages(images=files)
        served.classify(pb.ClassifyRequest(model="colours", encoded=encoded)).result()

    ask(jpeg_of("red"))
    found = only(served)
    assert (found.rows, found.success.count, found.fail.count) == (1, 1, 0)
    assert found.decode.count == 1
    assert found.success.ns > found.queue.ns + found.compute.ns
    ask(jpeg_of("red"), b"no picture")
    assert (only(served).success.count, only(served).fail.count) == (2, 0)
    ask(b"no picture", b"nor this")
    with pytest.raises(grpc.RpcError):
        ask(b"no picture")
    found = only(served)
    assert (found.success.count, found.fail.count, found.decode.count) == (2, 2, 4)
    assert found.rows == 2
