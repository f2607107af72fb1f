"""StreamClassify, health and reflection, on every front."""

import queue
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from convserve_protos import classifier_pb2 as pb
from tests.bundles import digit_of
from tests.server.conftest import WAIT_S, Serve, answers, request_for
from tests.server.transports.test_conformance import failure, until

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Outgoing:
    """Requests of a stream, sent when a test says so."""

    def __init__(self) -> None:
        self._queue: queue.Queue[pb.StreamClassifyRequest | None] = queue.Queue()

    def send(self, *requests: pb.ClassifyRequest) -> None:
        for request in requests:
            self._queue.put(pb.StreamClassifyRequest(request=request))

    def end(self) -> None:
        self._queue.put(None)

    def __iter__(self) -> Iterator[pb.StreamClassifyRequest]:
        return iter(lambda: self._queue.get(timeout=WAIT_S), None)


def test_stream_answers_every_request_by_its_id(serve: Serve, front: str) -> None:
    served = serve(front)
    outgoing = Outgoing()
    outgoing.send(*[request_for(n % 10, n // 10, id=str(n)) for n in range(100)])
    outgoing.end()
    got = {r.id: answers(r.response) for r in served.stub.StreamClassify(iter(outgoing))}
    assert got == {str(n): [n % 10, n // 10] for n in range(100)}


def test_stream_goes_on_after_a_bad_request(serve: Serve, front: str) -> None:
    served = serve(front)
    outgoing = Outgoing()
    outgoing.send(
        request_for(1, id="a"), request_for(1, id="b", model="no"), request_for(2, id="c")
    )
    outgoing.end()
    got = {r.id: r for r in served.stub.StreamClassify(iter(outgoing))}
    assert got["b"].error.code == grpc.StatusCode.NOT_FOUND.value[0]
    assert got["b"].error.message == "no model 'no'; loaded: mnist"
    assert got["b"].error.details
    assert answers(got["a"].response) == [1]
    assert answers(got["c"].response) == [2]


def test_stream_refuses_an_id_that_is_in_flight(serve: Serve, front: str) -> None:
    served = serve(front)
    served.engine.hold()
    outgoing = Outgoing()
    outgoing.send(request_for(1, id="same"), request_for(2, id="same"))
    replies = served.stub.StreamClassify(iter(outgoing))
    refused = next(replies)
    assert refused.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    served.engine.release()
    assert answers(next(replies).response) == [1]
    outgoing.send(request_for(3, id="same"))
    assert answers(next(replies).response) == [3]
    outgoing.end()
    assert list(replies) == []


def test_stream_answers_as_requests_finish(serve: Serve, front: str) -> None:
    served = serve(front)
    served.engine.hold()
    outgoing = Outgoing()
    outgoing.send(request_for(1, id="slow"))
    replies = served.stub.StreamClassify(iter(outgoing))
    served.engine.wait_entered()
    outgoing.send(request_for(1, id="quick", top_k=99))
    assert next(replies).id == "quick"
    served.engine.release()
    assert next(replies).id == "slow"
    outgoing.end()


def test_stream_that_is_cancelled_drops_what_is_queued(serve: Serve, front: str) -> None:
    served = serve(front)
    served.engine.hold()
    running = served.classify(request_for(0))
    served.engine.wait_entered()
    outgoing = Outgoing()
    outgoing.send(*[request_for(1, id=str(n)) for n in range(5)])
    replies = served.stub.StreamClassify(iter(outgoing))
    batcher = served.worker.repository.get("mnist", None).batcher
    until(lambda: batcher.waiting == 5)
    replies.cancel()
    until(lambda: batcher.waiting == 0)
    outgoing.end()
    served.engine.release()
    assert answers(running.result()) == [0]


def test_stream_with_bytes_that_are_no_protobuf_ends_with_invalid_argument(
    serve: Serve, front: str
) -> None:
    served = serve(front)
    channel: Any = served.channel
    raw = channel.stream_stream("/convserve.v1.Classifier/StreamClassify")
    good = pb.StreamClassifyRequest(request=request_for(1, id="a")).SerializeToString()
    outgoing: queue.Queue[bytes] = queue.Queue()
    outgoing.put(good)
    replies = raw(iter(lambda: outgoing.get(timeout=WAIT_S), None), timeout=WAIT_S)
    assert pb.StreamClassifyResponse.FromString(next(replies)).id == "a"
    outgoing.put(b"\xff\xff")
    error = failure(lambda: next(replies))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    outgoing.put(good)  # the sender is waiting for one


def test_drain_answers_what_is_in_flight_on_a_stream_then_ends_it(serve: Serve, front: str) -> None:
    served = serve(front)
    served.engine.hold()
    outgoing = Outgoing()
    outgoing.send(request_for(8, id="a"))
    replies = served.stub.StreamClassify(iter(outgoing))
    served.engine.wait_entered()
    stopping = threading.Thread(target=served.worker.stop)
    stopping.start()
    until(lambda: served.worker._router._refusing)
    served.engine.release()
    assert [answers(reply.response) for reply in replies] == [[8]]
    outgoing.end()
    stopping.join(WAIT_S)
    assert not stopping.is_alive()


@pytest.mark.parametrize("service", ["", "convserve.v1.Classifier", "mnist"])
def test_health_check_answers_for_server_service_and_model(
    serve: Serve, front: str, service: str
) -> None:
    stub = health_pb2_grpc.HealthStub(serve(front).channel)
    request = health_pb2.HealthCheckRequest(service=service)
    assert stub.Check(request, timeout=WAIT_S).status == SERVING


def test_health_check_of_an_unknown_service_is_not_found(serve: Serve, front: str) -> None:
    stub = health_pb2_grpc.HealthStub(serve(front).channel)
    request = health_pb2.HealthCheckRequest(service="no")
    error = failure(lambda: stub.Check(request, timeout=WAIT_S))
    assert error.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("service", ["a" * 10_000, "é" * 3_000])
def test_health_check_of_an_unknown_service_of_any_name_is_not_found(
    serve: Serve, front: str, service: str
) -> None:
    stub = health_pb2_grpc.HealthStub(serve(front).channel)
    request = health_pb2.HealthCheckRequest(service=service)
    error = failure(lambda: stub.Check(request, timeout=WAIT_S))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert (error.details() or "").startswith(f"unknown service '{service[:10]}")


def test_health_list_says_what_is_known(serve: Serve, front: str) -> None:
    served = serve(front)
    stub = health_pb2_grpc.HealthStub(served.channel)
    reply = stub.List(health_pb2.HealthListRequest(), timeout=WAIT_S)
    assert {name: answer.status for name, answer in reply.statuses.items()} == {
        "": SERVING,
        "convserve.v1.Classifier": SERVING,
        "inference.GRPCInferenceService": SERVING,
        "mnist": SERVING,
    }


def test_health_of_the_server_itself_is_serving_while_it_leaves(serve: Serve, front: str) -> None:
    served = serve(front)
    stub = health_pb2_grpc.HealthStub(served.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="mnist"), timeout=WAIT_S)
    live = stub.Watch(health_pb2.HealthCheckRequest(service="/live"), timeout=WAIT_S)
    assert next(watch).status == next(live).status == SERVING
    served.worker.leave()
    assert next(watch).status == NOT_SERVING
    for service, status in (("", NOT_SERVING), ("mnist", NOT_SERVING), ("/live", SERVING)):
        request = health_pb2.HealthCheckRequest(service=service)
        assert stub.Check(request, timeout=WAIT_S).status == status
    # They are still there, and end when the server drains.
    watch.cancel()
    served.worker._health.drain()
    assert list(live) == []


def test_health_list_of_too_many_services_is_refused(serve: Serve, front: str) -> None:
    served = serve(front)
    stub = health_pb2_grpc.HealthStub(served.channel)
    for number in range(97):
        served.worker._health.set(f"model-{number}", True)
    error = failure(lambda: stub.List(health_pb2.HealthListRequest(), timeout=WAIT_S))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == "services: expected at most 100 to list, got 101"


def test_health_watch_follows_a_model(serve: Serve, front: str) -> None:
    import shutil

    from tests.bundles import write_bundle

    served = serve(front, scan_s=0.1)
    stub = health_pb2_grpc.HealthStub(served.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="mnist"), timeout=WAIT_S)
    assert next(watch).status == SERVING
    shutil.rmtree(served.models / "mnist")
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    write_bundle(served.models, version=2)
    assert next(watch).status == SERVING
    watch.cancel()


def test_server_without_models_is_not_serving_until_one_appears(
    serve: Serve, front: str, tmp_path: Any
) -> None:
    from tests.bundles import write_bundle

    (tmp_path / "models").mkdir()
    served = serve(front, scan_s=0.1)
    stub = health_pb2_grpc.HealthStub(served.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=""), timeout=WAIT_S)
    assert next(watch).status == NOT_SERVING
    error = failure(lambda: served.classify(request_for(1)).result())
    assert error.details() == "no model 'mnist'; loaded: none"
    write_bundle(served.models)
    assert next(watch).status == SERVING
    assert answers(served.classify(request_for(1)).result()) == [1]
    watch.cancel()


def test_health_watch_ends_when_the_server_drains(serve: Serve, front: str) -> None:
    served = serve(front)
    stub = health_pb2_grpc.HealthStub(served.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="mnist"), timeout=WAIT_S)
    assert next(watch).status == SERVING
    stopping = threading.Thread(target=served.worker.stop)
    stopping.start()
    assert [reply.status for reply in watch] == [NOT_SERVING]
    stopping.join(WAIT_S)
    assert not stopping.is_alive()


def test_reflection_alone_is_enough_to_call_classify(serve: Serve, front: str) -> None:
    served = serve(front)
    database = ProtoReflectionDescriptorDatabase(served.channel)
    assert {
        "convserve.v1.Classifier",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    } <= set(database.get_services())
    # Nothing of ours is in this pool but what the server says.
    pool = descriptor_pool.DescriptorPool(database)
    method = pool.FindServiceByName("convserve.v1.Classifier").FindMethodByName("Classify")
    request_type: Any = message_factory.GetMessageClass(method.input_type)
    response_type: Any = message_factory.GetMessageClass(method.output_type)
    request = request_type()
    request.model = "mnist"
    request.pixels.count = 1
    request.pixels.height = request.pixels.width = 28
    request.pixels.channels = 1
    request.pixels.data = digit_of(6).tobytes()
    channel: Any = served.channel
    call = channel.unary_unary(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=response_type.FromString,
    )
    (result,) = call(request, timeout=WAIT_S).results
    assert max(range(10), key=lambda k: result.prediction.probabilities[k]) == 6


def test_reflection_of_an_unknown_symbol_is_an_error_reply(serve: Serve, front: str) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(serve(front).channel)
    request = reflection_pb2.ServerReflectionRequest(file_containing_symbol="no.Such")
    (reply,) = stub.ServerReflectionInfo(iter([request]), timeout=WAIT_S)
    assert reply.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
