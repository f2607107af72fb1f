"""Every call is counted exactly once, however it comes and ends."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
import pytest

from convserve_protos import classifier_pb2 as pb
from convserve_server.protocols.convserve_v1.service import CLASSIFY
from convserve_server.protocols.open_inference.service import MODEL_INFER
from convserve_server.telemetry.layouts import OTHER
from tests.bundles import SHAPE
from tests.server.conftest import (
    SOON_S,
    WAIT_S,
    CallWatch,
    Serve,
    Served,
    answers,
    request_for,
)
from tests.server.http_client import HttpClient

CHECK = "/grpc.health.v1.Health/Check"
LIST = "/convserve.v1.Classifier/ListModels"
STREAM = "/convserve.v1.Classifier/StreamClassify"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
MNIST = "mnist/1"


def found(served: Served) -> dict[tuple[str, str, str], int]:
    """How many calls have ended, by method, model version and code."""
    calls = served.worker.statistics.totals.calls()
    return {
        (key.method, f"{key.model}/{key.version}" if key.model else "", key.code): times.count
        for key, times in calls.items()
    }


def expect(served: Served, expected: Mapping[tuple[str, str, str], int]) -> None:
    """Waits until these calls are counted, which is after their answers, and no others."""
    end = time.monotonic() + WAIT_S
    while found(served) != expected and time.monotonic() < end:
        time.sleep(0.005)
    assert found(served) == expected
    # What were counted twice would be before this one, which comes later.
    status(served, CHECK, b"\xff")
    more = Counter(expected)
    more[CHECK, "", "INVALID_ARGUMENT"] += 1
    while found(served) != more and time.monotonic() < end:
        time.sleep(0.005)
    assert found(served) == more


def status(served: Served, method: str, payload: bytes = b"", timeout_s: float = WAIT_S) -> str:
    """Makes a unary call; returns the name of the code that it has ended with."""
    call: Any = served.channel.unary_unary(method)
    try:
        call(payload, timeout=timeout_s)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code.name
    return "OK"


def classify(served: Served, **fields: object) -> str:
    return status(served, CLASSIFY, request_for(1, **fields).SerializeToString())


def test_each_end_of_a_unary_call(serve: Serve, front: str) -> None:
    served = serve(front)
    height, width, channels = SHAPE
    wrong = pb.Pixels(count=1, height=2, width=width, channels=channels)
    large = b"\x00" * (served.worker._router._max_message_bytes + 1)
    expected: Counter[tuple[str, str, str]] = Counter()
    for asked, method, model, code in (
        (classify(served), CLASSIFY, MNIST, "OK"),
        (classify(served), CLASSIFY, MNIST, "OK"),
        (classify(served, pixels=wrong), CLASSIFY, MNIST, "INVALID_ARGUMENT"),
        # No label is a name that a caller makes up.
        (classify(served, model="none"), CLASSIFY, "", "NOT_FOUND"),
        (classify(served, version=7), CLASSIFY, "", "NOT_FOUND"),
        (status(served, CLASSIFY, b"\xff"), CLASSIFY, "", "INVALID_ARGUMENT"),
        (status(served, MODEL_INFER, b"\xff"), MODEL_INFER, "", "INVALID_ARGUMENT"),
        (status(served, LIST), LIST, "", "OK"),
        (status(served, CHECK), CHECK, "", "OK"),
        (status(served, CHECK, b"\n\x04none"), CHECK, "", "NOT_FOUND"),
        (status(served, "/made.up.Service/Method"), OTHER, "", "UNIMPLEMENTED"),
        (status(served, "/convserve.v1.Classifier/Other"), OTHER, "", "UNIMPLEMENTED"),
    ):
        assert asked == code
        expected[method, model, code] += 1
    # On grpcio the library refuses it: nothing of ours sees it.
    assert status(served, CLASSIFY, large) == "RESOURCE_EXHAUSTED"
    if front == "native":
        expected[CLASSIFY, "", "RESOURCE_EXHAUSTED"] += 1
    expect(served, expected)
    refused = served.worker.statistics.totals.refused()
    assert refused.pop("MESSAGE_TOO_LARGE", 0) == (front == "native")
    # The last one is of expect().
    assert refused == {"INVALID_REQUEST": 4, "NOT_FOUND": 2, "UNIMPLEMENTED": 2}


def test_requests_on_a_stream_and_the_stream_itself(serve: Serve, front: str) -> None:
    served = serve(front)
    requests = [request_of(number) for number in range(3)] + [request_of(4, model="none")]
    streamed: Any = served.stub.StreamClassify
    assert len(list(streamed(iter(requests), timeout=WAIT_S))) == 4
    expected = {
        (CLASSIFY, MNIST, "OK"): 3,
        (CLASSIFY, "", "NOT_FOUND"): 1,
        (STREAM, "", "OK"): 1,
    }
    expect(served, expected)
    expected[CHECK, "", "INVALID_ARGUMENT"] = 1

    # What the server cannot read ends the stream.
    call: Any = served.channel.stream_stream(STREAM)
    with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
        list(call(iter([b"\xff"]), timeout=WAIT_S))
    # One whose caller goes away, with a request that waits.
    while not served.engine.entered.empty():
        served.engine.wait_entered()
    served.engine.hold()
    over = threading.Event()
    gone = streamed(endless(request_of(1), over), timeout=WAIT_S)
    served.engine.wait_entered()
    gone.cancel()
    over.set()
    expected[STREAM, "", "INVALID_ARGUMENT"] = expected[STREAM, "", "CANCELLED"] = 1
    expected[CLASSIFY, MNIST, "CANCELLED"] = 1
    reflection: Any = served.channel.stream_stream(REFLECTION)
    assert list(reflection(iter([]), timeout=WAIT_S)) == []
    expected[REFLECTION, "", "OK"] = 1
    expect(served, expected)


def request_of(number: int, **fields: object) -> pb.StreamClassifyRequest:
    """A message of a stream."""
    return pb.StreamClassifyRequest(request=request_for(1, id=str(number), **fields))


def endless(
    request: pb.StreamClassifyRequest, over: threading.Event
) -> Iterator[pb.StreamClassifyRequest]:
    """A client that sends one request, and then waits."""
    yield request
    over.wait(WAIT_S)


def test_calls_whose_callers_leave_or_whose_time_is_over(serve: Serve, front: str) -> None:
    served = serve(front)
    served.engine.hold()
    running = served.classify(request_for(1))
    served.engine.wait_entered()
    left = served.classify(request_for(2))
    waits(served, 1)
    left.cancel()
    late = served.classify(request_for(3), timeout_s=SOON_S)
    assert late.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    expected = {
        (CLASSIFY, MNIST, "CANCELLED"): 1,
        (CLASSIFY, MNIST, "DEADLINE_EXCEEDED"): 1,
    }
    expect(served, expected)
    served.engine.release()
    assert answers(running.result()) == [1]
    expected[CLASSIFY, MNIST, "OK"] = expected[CHECK, "", "INVALID_ARGUMENT"] = 1
    expect(served, expected)
    (version,) = served.worker.statistics.totals.versions().values()
    assert version.queue.count == 1


def waits(served: Served, calls: int) -> None:
    """Waits until so many calls wait beside the one that runs."""
    while served.worker._router.in_flight != 1 + calls:
        time.sleep(0.005)


def test_calls_that_are_refused_before_they_are_parsed(serve: Serve, front: str) -> None:
    served = serve(front, max_queue=1)
    served.engine.hold()
    running = served.classify(request_for(1))
    served.engine.wait_entered()
    waiting = served.classify(request_for(1))
    waits(served, 1)
    for _ in range(5):
        # The first one is parsed, and the others are not: they need not be valid.
        assert classify(served) == "RESOURCE_EXHAUSTED"
    garbage = pb.ClassifyRequest(model="mnist").SerializeToString() + b"\xff"
    assert status(served, CLASSIFY, garbage) == "RESOURCE_EXHAUSTED"
    served.engine.release()
    for call in (running, waiting):
        call.result()
    expect(served, {(CLASSIFY, MNIST, "RESOURCE_EXHAUSTED"): 6, (CLASSIFY, MNIST, "OK"): 2})
    assert served.worker.statistics.totals.refused()["QUEUE_FULL"] == 6


def test_calls_by_http(serve: Serve) -> None:
    served = serve("grpcio", http=True)
    with HttpClient(served.http_port) as client:
        picture = b"not a picture"
        assert client.ask("POST", "/v1/models/mnist:classify", picture).status == 400
        assert client.ask("POST", "/v1/models/none:classify", picture).status == 404
        assert client.ask("GET", "/v1/models").status == 200
        assert client.ask("GET", "/v2/health/ready").status == 200
        proto = {"content-type": "application/proto"}
        request = request_for(1).SerializeToString()
        assert client.ask("POST", CLASSIFY, request, proto).status == 200
        assert client.ask("POST", "/made.up.Service/Method", b"", proto).status == 501
        served.engine.hold()
        late = {**proto, "connect-timeout-ms": f"{1000 * SOON_S:.0f}"}
        assert client.ask("POST", CLASSIFY, request, late).status == 504
        served.engine.release()
    expect(
        served,
        {
            (CLASSIFY, MNIST, "INVALID_ARGUMENT"): 1,
            (CLASSIFY, "", "NOT_FOUND"): 1,
            (LIST, "", "OK"): 1,
            (CHECK, "", "OK"): 1,
            (CLASSIFY, MNIST, "OK"): 1,
            (OTHER, "", "UNIMPLEMENTED"): 1,
            (CLASSIFY, MNIST, "DEADLINE_EXCEEDED"): 1,
        },
    )


def test_calls_while_the_server_stops_and_those_that_it_gives_up(serve: Serve, front: str) -> None:
    watch = CallWatch(LIST, lambda call: stop())
    served = serve(front, interceptors=[watch], lame_duck_s=0.0, grace_s=1.5)

    def stop() -> None:
        served.worker._router.refuse()

    served.engine.hold()
    running = served.classify(request_for(1))
    served.engine.wait_entered()
    assert status(served, LIST) == "OK"
    assert classify(served) == "UNAVAILABLE"
    assert served.worker.stop() == 1
    with contextlib.suppress(grpc.RpcError):
        running.result()
    served.engine.release()
    assert found(served) == {
        (LIST, "", "OK"): 1,
        (CLASSIFY, "", "UNAVAILABLE"): 1,
        (CLASSIFY, MNIST, "UNAVAILABLE"): 1,
    }
    assert served.worker.statistics.totals.refused() == {"DRAINING": 1}


def test_what_waits_is_known_and_forgotten(serve: Serve) -> None:
    served = serve("grpcio")
    totals = served.worker.statistics.totals

    def now() -> tuple[int, int]:
        served.worker.note_now()
        (version,) = totals.versions().values()
        return totals.in_flight(), version.waiting

    assert now() == (0, 0)
    served.engine.hold()
    calls = [served.classify(request_for(1, 2, 3))]
    served.engine.wait_entered()
    calls += [served.classify(request_for(1, 2, 3)) for _ in range(2)]
    waits(served, 2)
    assert now() == (3, 6)
    served.engine.release()
    for call in calls:
        call.result()
    while now() != (0, 0):
        time.sleep(0.005)
