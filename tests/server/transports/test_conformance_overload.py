"""Calls for which there is no time, and calls that may wait, on every front."""

import queue
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from convserve_protos import classifier_pb2 as pb
from convserve_server.core.batch_times import BatchTimes
from convserve_server.core.batcher import Batcher
from tests.jpegs import jpeg_of
from tests.server.conftest import WAIT_S, Serve, Served, answers, request_for
from tests.server.transports.test_conformance import until

#: Of a batch of one image or two, as the server thinks.
BATCH_S = 10.0
BATCH = (("convserve-priority", "batch"),)


def busy(
    serve: Serve, front: str, photos: bool = False, **settings: Any
) -> tuple[Served, Batcher, Any]:
    """A server whose engine is at a batch, which it thinks will take BATCH_S; and its call."""
    served = serve(front, photos=photos, max_batch=2, **settings)
    model = "colours" if photos else "mnist"
    batcher = served.worker.repository.get(model, None).batcher
    batcher._queue._times = BatchTimes({1: BATCH_S, 2: BATCH_S})
    batcher._queue._whole_s = BATCH_S
    served.engine.hold()
    running = served.classify(request_of(model, 0))
    served.engine.wait_entered()
    return served, batcher, running


def wait_for(batcher: Batcher, waiting: int) -> None:
    until(lambda: batcher.waiting == waiting)


def request_of(model: str, class_: int) -> pb.ClassifyRequest:
    if model == "mnist":
        return request_for(class_)
    return pb.ClassifyRequest(model=model, encoded=pb.EncodedImages(images=[jpeg_of("red")]))


def failure(call: Any) -> grpc.Call:
    with pytest.raises(grpc.RpcError) as caught:
        call.result()
    assert isinstance(caught.value, grpc.Call)
    return caught.value


def unpack(error: grpc.Call, found: Message) -> Any:
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert any(packed.Unpack(found) for packed in status.details)
    return found


@pytest.mark.parametrize("waiting", [0, 1, 3])
@pytest.mark.parametrize("photos", [False, True])
def test_call_that_cannot_meet_its_deadline_is_refused_at_once(
    serve: Serve, front: str, waiting: int, photos: bool
) -> None:
    served, batcher, running = busy(serve, front, photos=photos)
    model = "colours" if photos else "mnist"
    others = []
    for number in range(waiting):
        others.append(served.classify(request_of(model, 1)))
        wait_for(batcher, number + 1)
    # Twice: the second one may be refused before it is parsed.
    for _ in range(2):
        error = failure(served.classify(request_of(model, 2), timeout_s=0.5 * BATCH_S))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "deadline: expected at least " in (error.details() or "")
        assert f"for model {model}/1, got " in (error.details() or "")
        info = unpack(error, error_details_pb2.ErrorInfo())
        assert (info.reason, info.domain) == ("CANNOT_MEET_DEADLINE", "convserve")
        # The same call has only less time later.
        pushback = dict(error.trailing_metadata() or ()).get("grpc-retry-pushback-ms")
        assert pushback == (None if front == "native" else "-1")
    served.engine.release()
    assert [len(call.result().results) for call in (running, *others)] == [1] * (1 + waiting)
    assert sum(len(batch) for batch in served.engine.seen) == 1 + waiting


def test_refusal_says_when_a_new_call_has_enough_time(serve: Serve, front: str) -> None:
    served, _, running = busy(serve, front)
    error = failure(served.classify(request_for(1), timeout_s=1.5 * BATCH_S))
    retry = unpack(error, error_details_pb2.RetryInfo()).retry_delay.ToTimedelta()
    # The rest of the batch that runs and a batch are 2, less what has passed.
    assert 0.3 * BATCH_S < retry.total_seconds() < 0.6 * BATCH_S
    fits = served.classify(request_for(1), timeout_s=3 * BATCH_S)
    served.engine.release()
    assert [answers(call.result()) for call in (running, fits)] == [[0], [1]]


def test_call_without_a_deadline_waits_no_longer_than_it_may(serve: Serve, front: str) -> None:
    served, batcher, running = busy(serve, front, max_wait_ms=1.2 * BATCH_S * 1000)
    fits = [served.classify(request_for(number), None) for number in (1, 2)]
    wait_for(batcher, 2)
    error = failure(served.classify(request_for(3), None))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "exceeds max_wait_ms of 12000" in (error.details() or "")
    assert unpack(error, error_details_pb2.ErrorInfo()).reason == "QUEUE_FULL"
    assert unpack(error, error_details_pb2.RetryInfo()).retry_delay.ToTimedelta().total_seconds()
    served.engine.release()
    assert [answers(call.result()) for call in (running, *fits)] == [[0], [1], [2]]


def test_batch_calls_let_interactive_ones_pass(serve: Serve, front: str) -> None:
    served, batcher, running = busy(serve, front, batch_share=0.0)
    calls = []
    for number, metadata in (
        (1, BATCH),
        (2, BATCH),
        (3, ()),
        (4, (("convserve-priority", "interactive"),)),
    ):
        calls.append(
            served.stub.Classify.future(request_for(number), timeout=6 * WAIT_S, metadata=metadata)
        )
        wait_for(batcher, number)
    served.engine.release()
    assert [answers(call.result()) for call in calls] == [[1], [2], [3], [4]]
    order = [int(image[0, :10, 0].argmax()) for batch in served.engine.seen for image in batch]
    assert order == [0, 3, 4, 1, 2]
    assert answers(running.result()) == [0]


@pytest.mark.parametrize("metadata", [(), BATCH])
def test_priority_of_a_model_is_that_of_calls_that_do_not_say(
    serve: Serve, front: str, metadata: tuple[tuple[str, str], ...]
) -> None:
    served, batcher, _ = busy(serve, front, priority="batch")
    call = served.stub.Classify.future(request_for(1), timeout=6 * WAIT_S, metadata=metadata)
    wait_for(batcher, 1)
    assert batcher._queue._queue._batch.waiting == 1
    served.engine.release()
    assert answers(call.result()) == [1]


def test_priority_that_does_not_exist_is_an_invalid_argument(serve: Serve, front: str) -> None:
    served = serve(front)
    metadata = (("convserve-priority", "low"),)
    error = failure(served.stub.Classify.future(request_for(1), timeout=WAIT_S, metadata=metadata))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "convserve-priority: expected interactive or batch, got 'low'"
    [violation] = unpack(error, error_details_pb2.BadRequest()).field_violations
    assert violation.field == "convserve-priority"


def test_requests_of_a_stream_have_its_priority(serve: Serve, front: str) -> None:
    served, batcher, _ = busy(serve, front)
    requests: queue.Queue[pb.StreamClassifyRequest | None] = queue.Queue()
    requests.put(pb.StreamClassifyRequest(request=request_for(1, id="a")))

    def sent() -> Iterator[pb.StreamClassifyRequest]:
        while (request := requests.get(timeout=WAIT_S)) is not None:
            yield request

    responses = served.stub.StreamClassify(sent(), timeout=6 * WAIT_S, metadata=BATCH)
    wait_for(batcher, 1)
    assert batcher._queue._queue._batch.waiting == 1
    served.engine.release()
    requests.put(None)
    assert [answers(one.response) for one in responses] == [[1]]
