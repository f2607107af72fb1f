"""What a caller meets, over a real connection, the same on every front."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from convserve_protos import classifier_pb2 as pb
from convserve_server.protocols.base import Caller
from tests.server.conftest import SOON_S, WAIT_S, CallWatch, Serve, Served, answers, request_for

D = TypeVar("D", bound=Message)


def failure(call: Callable[[], object]) -> grpc.Call:
    """The error that a call ends with."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert isinstance(caught.value, grpc.Call)
    return caught.value


def detail(error: grpc.Call, kind: type[D]) -> D:
    """The google.rpc detail of a kind in an error's trailers."""
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    found = kind()
    for packed in status.details:
        if packed.Unpack(found):
            return found
    raise AssertionError(f"no {kind.__name__} in {status}")


def send_raw(served: Served, method: str, payload: bytes) -> bytes:
    """Call a method with bytes that are sent as they are."""
    channel: Any = served.channel
    reply: bytes = channel.unary_unary(method)(payload, timeout=WAIT_S)
    return reply


CLASSIFY = "/convserve.v1.Classifier/Classify"


def test_classify_of_several_images_answers_each_in_order(serve: Serve, front: str) -> None:
    served = serve(front)
    response = served.classify(request_for(7, 0, 3, 3, id="abc")).result()
    assert answers(response) == [7, 0, 3, 3]
    assert response.id == "abc"
    assert (response.model, response.version) == ("mnist", 1)
    assert list(response.labels) == [str(label) for label in range(10)]
    for result in response.results:
        assert len(result.prediction.probabilities) == 10
        assert sum(result.prediction.probabilities) == pytest.approx(1.0, abs=1e-5)
        assert not result.prediction.classes


def test_top_k_gives_the_most_probable_classes_first(serve: Serve, front: str) -> None:
    served = serve(front)
    response = served.classify(request_for(4, 9, top_k=3)).result()
    for result, first in zip(response.results, (4, 9), strict=True):
        assert len(result.prediction.probabilities) == 3
        assert result.prediction.classes[0] == first
        assert list(result.prediction.probabilities) == sorted(
            result.prediction.probabilities, reverse=True
        )


def test_timings_tell_queue_and_compute_apart(serve: Serve, front: str) -> None:
    served = serve(front)
    served.engine.hold()
    first = served.classify(request_for(1))
    served.engine.wait_entered()
    second = served.classify(request_for(2))
    # The second cannot start before the first is through, and the first cannot yet.
    assert not second.done()
    served.engine.release()
    first_us, second_us = first.result().timings, second.result().timings
    assert first_us.compute_us > 0
    assert second_us.queue_us > 0


def test_batches_grow_while_the_engine_is_busy(serve: Serve, front: str) -> None:
    served = serve(front)
    served.engine.hold()
    calls = [served.classify(request_for(0))]
    assert served.engine.wait_entered() == 1
    calls += [served.classify(request_for(class_)) for class_ in range(1, 10)]
    waiting = served.worker.repository.get("mnist", None).batcher
    until(lambda: waiting.waiting == 9)
    served.engine.release()
    assert [answers(call.result()) for call in calls] == [[class_] for class_ in range(10)]
    assert served.engine.wait_entered() == 9


def until(condition: Callable[[], bool]) -> None:
    """Wait for what only another thread can bring about, under a deadline."""
    tick = threading.Event()
    for _ in range(int(WAIT_S * 200)):
        if condition():
            return
        tick.wait(0.005)
    raise AssertionError("did not come about")


@pytest.mark.parametrize(
    ("change", "field", "was", "taken"),
    [
        ({"height": 27}, "pixels.height", "27", "28"),
        ({"width": 32}, "pixels.width", "32", "28"),
        ({"channels": 3}, "pixels.channels", "3", "1"),
        ({"count": 0}, "pixels.count", "0", "1 to 8"),
        ({"count": 9}, "pixels.count", "9", "1 to 8"),
        ({"count": 2}, "pixels.data", "784", "1568"),
        ({"data": b""}, "pixels.data", "0", "784"),
    ],
)
def test_wrong_pixels_are_refused_by_field(
    serve: Serve, front: str, change: dict[str, object], field: str, was: str, taken: str
) -> None:
    served = serve(front, max_images=8)
    request = request_for(1)
    for name, value in change.items():
        setattr(request.pixels, name, value)
    error = failure(lambda: served.classify(request).result())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    (violation,) = detail(error, error_details_pb2.BadRequest).field_violations
    assert violation.field == field
    assert was in violation.description
    assert taken in violation.description
    assert served.engine.entered.empty()


@pytest.mark.parametrize("top_k", [0, 11])
def test_top_k_out_of_range_is_refused(serve: Serve, front: str, top_k: int) -> None:
    error = failure(lambda: serve(front).classify(request_for(1, top_k=top_k)).result())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == f"top_k: expected 1 to 10 for model mnist, got {top_k}"
    (violation,) = detail(error, error_details_pb2.BadRequest).field_violations
    assert violation.field == "top_k"


def test_request_without_images_is_refused(serve: Serve, front: str) -> None:
    error = failure(lambda: serve(front).classify(pb.ClassifyRequest(model="mnist")).result())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "input: expected pixels or encoded images, got neither"


def test_id_over_the_limit_is_refused(serve: Serve, front: str) -> None:
    error = failure(lambda: serve(front).classify(request_for(1, id="x" * 129)).result())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "id: expected at most 128 bytes, got 129"


def test_unknown_model_is_not_found_and_names_what_exists(serve: Serve, front: str) -> None:
    error = failure(lambda: serve(front).classify(request_for(1, model="minst")).result())
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == "no model 'minst'; loaded: mnist"
    assert detail(error, error_details_pb2.ResourceInfo).resource_name == "minst"


@pytest.mark.parametrize("name", ["a" * 10_000, "é" * 3_000, "a" * 2**20])
def test_unknown_model_of_any_name_is_not_found(serve: Serve, front: str, name: str) -> None:
    error = failure(lambda: serve(front).classify(request_for(1, model=name)).result())
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert (error.details() or "").startswith(f"no model '{name[:10]}")
    assert (error.details() or "").endswith(f"{name[-10:]}'; loaded: mnist")
    assert detail(error, error_details_pb2.ResourceInfo).resource_name.startswith(name[:10])


def test_unknown_version_is_not_found_and_names_what_exists(serve: Serve, front: str) -> None:
    served = serve(front)
    assert served.classify(request_for(1, version=1)).result().version == 1
    error = failure(lambda: served.classify(request_for(1, version=2)).result())
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == "model mnist has no version 2; loaded: 1"
    assert detail(error, error_details_pb2.ResourceInfo).resource_name == "mnist/2"


@pytest.mark.parametrize("method", ["Classify", "ListModels"])
def test_bytes_that_are_no_protobuf_are_refused(serve: Serve, front: str, method: str) -> None:
    served = serve(front)
    error = failure(lambda: send_raw(served, f"/convserve.v1.Classifier/{method}", b"\xff\xff"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"convserve.v1.{method}Request" in (error.details() or "")
    assert answers(served.classify(request_for(5)).result()) == [5]


def test_message_over_the_limit_is_refused_with_the_limit(serve: Serve, front: str) -> None:
    served = serve(front, max_message_bytes=4096)
    error = failure(lambda: send_raw(served, CLASSIFY, bytes(4097)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == "SERVER: Received message larger than max (4097 vs. 4096)"
    assert answers(served.classify(request_for(5)).result()) == [5]


def test_compressed_request_is_read(serve: Serve, front: str) -> None:
    served = serve(front)
    response = served.stub.Classify(
        request_for(6), timeout=WAIT_S, compression=grpc.Compression.Gzip
    )
    assert answers(response) == [6]


@pytest.mark.parametrize("method", ["/convserve.v1.Classifier/Nothing", "/no.Such/Classify", "/"])
@pytest.mark.parametrize("kind", ["unary_unary", "stream_stream"])
def test_unknown_method_is_unimplemented_and_names_what_exists(
    serve: Serve, front: str, method: str, kind: str
) -> None:
    channel: Any = serve(front).channel
    call = getattr(channel, kind)(method)
    if kind == "unary_unary":
        error = failure(lambda: call(b"", timeout=WAIT_S))
    else:
        error = failure(lambda: list(call(iter([b""]), timeout=WAIT_S)))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert error.details() == (
        f"no method {method!r}; services: convserve.v1.Classifier, grpc.health.v1.Health, "
        "grpc.reflection.v1.ServerReflection, grpc.reflection.v1alpha.ServerReflection, "
        "inference.GRPCInferenceService"
    )


def test_stream_to_an_unknown_method_that_does_not_end_is_unimplemented(
    serve: Serve, front: str
) -> None:
    channel: Any = serve(front).channel
    ended = threading.Event()
    replies = channel.stream_stream("/no.Such/Method")(
        iter(lambda: ended.wait(WAIT_S), True), timeout=WAIT_S
    )
    error = failure(lambda: list(replies))
    ended.set()
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def test_full_queue_answers_resource_exhausted_at_once(serve: Serve, front: str) -> None:
    served = serve(front, max_queue=3, max_batch=2)
    served.engine.hold()
    running = served.classify(request_for(0))
    served.engine.wait_entered()
    waiting = served.classify(request_for(1, 2))
    batcher = served.worker.repository.get("mnist", None).batcher
    until(lambda: batcher.waiting == 2)
    error = failure(lambda: served.classify(request_for(3, 4)).result())
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "2 images wait" in (error.details() or "")
    assert "limit of 3" in (error.details() or "")
    retry = detail(error, error_details_pb2.RetryInfo).retry_delay
    assert retry.ToTimedelta().total_seconds() > 0
    pushback = dict(error.trailing_metadata() or ()).get("grpc-retry-pushback-ms")
    # The native front cannot send it.
    assert (pushback is not None and int(pushback) > 0) == (front == "grpcio")
    fits = served.classify(request_for(5))
    served.engine.release()
    assert [answers(call.result()) for call in (running, waiting, fits)] == [[0], [1, 2], [5]]


def test_deadline_passed_in_the_queue_costs_no_compute(serve: Serve, front: str) -> None:
    served = serve(front)
    served.engine.hold()
    running = served.classify(request_for(0))
    assert served.engine.wait_entered() == 1
    error = failure(lambda: served.classify(request_for(1), timeout_s=SOON_S).result())
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    batcher = served.worker.repository.get("mnist", None).batcher
    # The expired one leaves the queue although the engine is still busy.
    until(lambda: batcher.waiting == 0)
    last = served.classify(request_for(2))
    until(lambda: batcher.waiting == 1)
    served.engine.release()
    assert [answers(call.result()) for call in (running, last)] == [[0], [2]]
    assert served.engine.wait_entered() == 1
    assert served.engine.entered.empty()


def test_cancelled_while_queued_costs_no_compute(serve: Serve, front: str) -> None:
    served = serve(front)
    served.engine.hold()
    running = served.classify(request_for(0))
    assert served.engine.wait_entered() == 1
    batcher = served.worker.repository.get("mnist", None).batcher
    leaving = served.classify(request_for(1))
    until(lambda: batcher.waiting == 1)
    leaving.cancel()
    until(lambda: batcher.waiting == 0)
    last = served.classify(request_for(2))
    until(lambda: batcher.waiting == 1)
    served.engine.release()
    assert [answers(call.result()) for call in (running, last)] == [[0], [2]]
    assert served.engine.wait_entered() == 1


def test_engine_fault_fails_its_batch_alone_with_an_id_in_the_log(
    serve: Serve, front: str, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve(front)
    served.engine.fault = ZeroDivisionError("a secret of ours")
    error = failure(lambda: served.classify(request_for(1)).result())
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in (error.details() or "")
    fault_id = (error.details() or "").split()[-1]
    assert any(
        getattr(record, "fault_id", None) == fault_id and record.exc_info
        for record in caplog.records
    )
    served.engine.fault = None
    assert answers(served.classify(request_for(2)).result()) == [2]


def test_draining_server_answers_what_is_in_flight_and_refuses_the_rest(
    serve: Serve, front: str
) -> None:
    served = serve(front, lame_duck_s=0.0)
    served.engine.hold()
    running = served.classify(request_for(0))
    served.engine.wait_entered()
    queued = served.classify(request_for(1))
    until(lambda: served.worker.repository.get("mnist", None).batcher.waiting == 1)
    stopping = threading.Thread(target=served.worker.stop)
    stopping.start()
    until(lambda: served.worker._router._refusing)
    error = failure(lambda: served.classify(request_for(2)).result())
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    served.engine.release()
    assert [answers(call.result()) for call in (running, queued)] == [[0], [1]]
    stopping.join(WAIT_S)
    assert not stopping.is_alive()
    assert served.worker.stop() == 0


def test_drain_that_runs_out_of_time_answers_unavailable(serve: Serve, front: str) -> None:
    served = serve(front, grace_s=1.2)
    served.engine.hold()
    running = served.classify(request_for(0))
    served.engine.wait_entered()
    stopping = threading.Thread(target=served.worker.stop)
    stopping.start()
    error = failure(running.result)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    served.engine.release()
    stopping.join(WAIT_S)
    assert served.worker.stop() == 1


def test_list_models_says_what_is_loaded(serve: Serve, front: str) -> None:
    served = serve(front)
    (model,) = served.stub.ListModels(pb.ListModelsRequest(), timeout=WAIT_S).models
    assert (model.name, model.version) == ("mnist", 1)
    assert model.execution_provider == "HeldExecutionProvider"
    assert model.manifest.input.height == 28
    assert len(model.manifest.labels) == 10


def test_new_version_takes_over_without_a_failed_call(serve: Serve, front: str) -> None:
    from tests.bundles import write_bundle

    served = serve(front, scan_s=0.1)
    served.engine.hold()
    old = served.classify(request_for(3))
    served.engine.wait_entered()
    write_bundle(served.models, version=2)
    until(lambda: served.worker.repository.get("mnist", None).version == 2)
    served.engine.release()
    assert old.result().version == 1
    assert answers(old.result()) == [3]
    assert served.classify(request_for(4)).result().version == 2


def test_call_knows_who_calls(serve: Serve, front: str) -> None:
    callers: list[Caller] = []
    watching = CallWatch(CLASSIFY, lambda call: callers.append(call.caller()))
    served = serve(front, interceptors=[watching])
    metadata = (("who", "a caller"), ("who-bin", b"\x00\xff"))
    served.stub.Classify(request_for(1), timeout=WAIT_S, metadata=metadata)
    (caller,) = callers
    assert caller.peer.startswith("ipv4:127.0.0.1:")
    assert set(metadata) <= {tuple(pair) for pair in caller.metadata}


def test_many_calls_one_after_another_then_together_are_each_answered(
    serve: Serve, front: str
) -> None:
    served = serve(front)
    # Long enough for the front to take the caller for a lone one, and back.
    for _ in range(2):
        for n in range(40):
            assert answers(served.classify(request_for(n % 10)).result()) == [n % 10]
        calls = [served.classify(request_for(n % 10)) for n in range(200)]
        assert [answers(call.result()) for call in calls] == [[n % 10] for n in range(200)]
