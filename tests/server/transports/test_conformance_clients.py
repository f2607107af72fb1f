"""What a server is to clients that are none of ours: grpcio's, sync and asyncio, and h2load."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.harness.h2load import H2loadDriver
from benchmarks.harness.load import Task
from convserve_protos import classifier_pb2 as pb
from convserve_protos.classifier_pb2_grpc import ClassifierStub
from tests.server.conftest import SOON_S, WAIT_S, Serve, Served, answers, request_for
from tests.server.transports.test_conformance import CLASSIFY, detail, failure, send_raw, until


@asynccontextmanager
async def aio_stub(served: Served) -> AsyncIterator[Any]:
    """A stub whose methods are awaited, on a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(served.address, options) as channel:
        yield ClassifierStub(channel)


async def comes_about(condition: Any) -> None:
    """See until; the event loop goes on."""
    await asyncio.get_running_loop().run_in_executor(None, until, condition)


@pytest.mark.parametrize(
    ("size", "code"),
    [
        (4095, grpc.StatusCode.INVALID_ARGUMENT),  # was read: zeros are not a request
        (4096, grpc.StatusCode.INVALID_ARGUMENT),
        (4097, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (2**20, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_limit_of_a_message_is_the_largest_that_is_taken(
    serve: Serve, front: str, size: int, code: grpc.StatusCode
) -> None:
    served = serve(front, max_message_bytes=4096)
    error = failure(lambda: send_raw(served, CLASSIFY, bytes(size)))
    assert error.code() is code
    assert answers(served.classify(request_for(5)).result()) == [5]


def test_deflate_is_read_by_grpcio_and_refused_by_native(serve: Serve, front: str) -> None:
    served = serve(front)

    def call() -> pb.ClassifyResponse:
        return served.stub.Classify(
            request_for(6), timeout=WAIT_S, compression=grpc.Compression.Deflate
        )

    if front == "grpcio":
        assert answers(call()) == [6]
    else:
        error = failure(call)
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "deflate" in (error.details() or "")


def test_gzip_is_taken_and_answers_are_plain(serve: Serve, front: str) -> None:
    served = serve(front, max_images=1000)
    classes = [n % 10 for n in range(1000)]
    call = served.stub.Classify.with_call
    response, done = call(request_for(*classes), timeout=WAIT_S, compression=grpc.Compression.Gzip)
    assert answers(response) == classes
    sent = dict(done.initial_metadata())
    assert "grpc-encoding" not in sent


def test_request_and_answer_larger_than_any_window_are_whole(serve: Serve, front: str) -> None:
    served = serve(front, max_images=8000, max_batch=4096, max_queue=8000)
    classes = [n % 10 for n in range(8000)]
    request = request_for(*classes)
    assert request.ByteSize() > 6_000_000
    response = served.classify(request).result()
    assert response.ByteSize() > 300_000
    assert answers(response) == classes


def test_call_of_a_thousand_images_waits_its_turn(serve: Serve, front: str) -> None:
    served = serve(front, max_images=1000, max_queue=1001)
    classes = [n % 10 for n in range(1000)]
    served.engine.hold()
    running = served.classify(request_for(1))
    served.engine.wait_entered()
    batcher = served.worker.repository.get("mnist", None).batcher
    waiting = served.classify(request_for(2))
    until(lambda: batcher.waiting == 1)
    large = served.classify(request_for(*classes))
    until(lambda: batcher.waiting == 1001)
    served.engine.release()
    assert answers(running.result()) == [1]
    assert answers(waiting.result()) == [2]
    assert answers(large.result()) == classes


@pytest.mark.parametrize("method", ["/no.Such/Classify", "/convserve.v1.Classifier/classify"])
def test_unknown_service_and_method_are_unimplemented(
    serve: Serve, front: str, method: str
) -> None:
    error = failure(lambda: send_raw(serve(front), method, b""))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert (error.details() or "").startswith(f"no method {method!r}; services: ")


def test_good_answer_has_no_metadata_but_the_protocols(serve: Serve, front: str) -> None:
    served = serve(front)
    _, done = served.stub.Classify.with_call(request_for(1), timeout=WAIT_S)
    assert done.code() is grpc.StatusCode.OK
    assert list(done.trailing_metadata()) == []
    assert not [key for key, _ in done.initial_metadata() if not key.startswith("grpc-")]


def test_message_of_an_error_keeps_every_letter(serve: Serve, front: str) -> None:
    error = failure(lambda: serve(front).classify(request_for(1, model="é%41 ")).result())
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == "no model 'é%41 '; loaded: mnist"
    assert detail(error, error_details_pb2.ResourceInfo).resource_name == "é%41 "


async def test_asyncio_client_gets_the_same_error(serve: Serve, front: str) -> None:
    async with aio_stub(serve(front)) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Classify(request_for(1, top_k=11), timeout=WAIT_S)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "top_k: expected 1 to 10 for model mnist, got 11"
    (violation,) = detail(error, error_details_pb2.BadRequest).field_violations
    assert violation.field == "top_k"


async def test_asyncio_client_has_many_calls_on_one_connection(serve: Serve, front: str) -> None:
    async with aio_stub(serve(front)) as stub:
        calls = [stub.Classify(request_for(n % 10), timeout=WAIT_S) for n in range(1000)]
        assert [answers(await call) for call in calls] == [[n % 10] for n in range(1000)]


async def test_asyncio_client_that_gives_up_costs_no_compute(serve: Serve, front: str) -> None:
    served = serve(front)
    batcher = served.worker.repository.get("mnist", None).batcher
    served.engine.hold()
    async with aio_stub(served) as stub:
        running = stub.Classify(request_for(0), timeout=WAIT_S)
        await comes_about(lambda: not served.engine.entered.empty())
        leaving = stub.Classify(request_for(1), timeout=WAIT_S)
        await comes_about(lambda: batcher.waiting == 1)
        leaving.cancel()
        await comes_about(lambda: batcher.waiting == 0)
        late = stub.Classify(request_for(2), timeout=SOON_S)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await late
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await comes_about(lambda: batcher.waiting == 0)
        served.engine.release()
        assert answers(await running) == [0]
    assert sum(len(batch) for batch in served.engine.seen) == 1


async def test_asyncio_client_streams(serve: Serve, front: str) -> None:
    async with aio_stub(serve(front)) as stub:
        stream = stub.StreamClassify(timeout=WAIT_S)
        for n in range(20):
            await stream.write(pb.StreamClassifyRequest(request=request_for(n % 10, id=str(n))))
        await stream.done_writing()
        got = {reply.id: answers(reply.response) async for reply in stream}
        assert got == {str(n): [n % 10] for n in range(20)}
        assert await stream.code() is grpc.StatusCode.OK


async def test_asyncio_client_watches_health(serve: Serve, front: str) -> None:
    served = serve(front)
    async with grpc.aio.insecure_channel(served.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="mnist"), timeout=WAIT_S)
        statuses = aiter(watch)
        assert (await anext(statuses)).status == health_pb2.HealthCheckResponse.SERVING
        stopping = asyncio.ensure_future(asyncio.to_thread(served.worker.stop))
        rest = [reply.status async for reply in statuses]
        assert rest == [health_pb2.HealthCheckResponse.NOT_SERVING]
        await stopping


@pytest.mark.skipif(not H2loadDriver.is_installed(), reason="h2load is not installed")
def test_h2load_has_every_call_answered(serve: Serve, front: str) -> None:
    served = serve(front)
    request = request_for(5)
    least = served.classify(request).result().ByteSize() - 20  # but for the timings
    # The driver raises if any call failed, or was answered with less.
    load = H2loadDriver().run(
        Task(served.address, request.SerializeToString(), least, 16, 2, seconds=0.5)
    )
    assert len(load.latencies_ms) > 0
