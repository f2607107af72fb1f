import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from convserve import (
    Cancelled,
    ConvserveError,
    DeadlineExceeded,
    InvalidRequest,
    ServerBusy,
    ServerFault,
    ServerUnavailable,
)
from convserve_protos import classifier_pb2
from tests.clients.conftest import Connect
from tests.clients.scripted_server import Answer, Failure, ScriptedServer, answer, expected_label

Digits = npt.NDArray[np.uint8]

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
AT_ONCE = [("grpc-retry-pushback-ms", "1")]


def failing_first(times: int, make: Callable[[], Failure]) -> Answer:
    """Each different request fails that often before it is answered."""
    lock, seen = threading.Lock(), Counter[bytes]()

    def fail_first(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        with lock:
            seen[request.pixels.data] += 1
            failing = seen[request.pixels.data] <= times
        if failing:
            raise make()
        return answer(request)

    return fail_first


@pytest.mark.parametrize("code", [UNAVAILABLE, RESOURCE_EXHAUSTED])
def test_refused_call_is_tried_again_and_answered(
    connect: Connect, server: ScriptedServer, digits: Digits, code: grpc.StatusCode
) -> None:
    server.answer = failing_first(2, lambda: Failure(code, "try later", trailers=AT_ONCE))
    assert connect().classify(digits[0]).label == expected_label(digits[0])
    assert len(server.requests) == 3


def test_backoff_without_pushback_ends_in_an_answer(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    server.answer = failing_first(1, lambda: Failure(UNAVAILABLE))
    assert connect().classify(digits[0]).label == expected_label(digits[0])
    assert len(server.requests) == 2


def test_each_call_of_a_split_request_is_tried_again(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    server.answer = failing_first(1, lambda: Failure(UNAVAILABLE, trailers=AT_ONCE))
    classification = connect(max_images_per_call=20).classify(digits)
    assert [one.label for one in classification] == [expected_label(one) for one in digits]
    assert len(server.requests) == 10


def test_largest_message_is_tried_again(connect: Connect, server: ScriptedServer) -> None:
    photo = np.random.default_rng(4).integers(0, 256, (1000, 1000, 3), np.uint8)
    server.answer = failing_first(1, lambda: Failure(UNAVAILABLE, trailers=AT_ONCE))
    assert connect().classify(photo).label == expected_label(photo)
    assert len(server.requests) == 2


def test_tries_end_after_four(connect: Connect, server: ScriptedServer, digits: Digits) -> None:
    server.answer = failing_first(9, lambda: Failure(RESOURCE_EXHAUSTED, trailers=AT_ONCE))
    with pytest.raises(ServerBusy):
        connect().classify(digits[0])
    assert len(server.requests) == 4


def test_server_that_forbids_another_try_is_obeyed(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    pushback = [("grpc-retry-pushback-ms", "-1")]
    server.answer = failing_first(1, lambda: Failure(UNAVAILABLE, "draining", trailers=pushback))
    with pytest.raises(ServerUnavailable, match="draining"):
        connect().classify(digits[0])
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INTERNAL, ServerFault),
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequest),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
    ],
)
def test_what_will_fail_again_is_not_tried_again(
    connect: Connect,
    server: ScriptedServer,
    digits: Digits,
    code: grpc.StatusCode,
    kind: type[ConvserveError],
) -> None:
    server.answer = failing_first(1, lambda: Failure(code))
    with pytest.raises(kind):
        connect().classify(digits[0])
    assert len(server.requests) == 1


@contextmanager
def reserved_address() -> Iterator[str]:
    """A port on which nobody listens, and which nobody else gets meanwhile."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{holder.getsockname()[1]}"


def test_absent_server_is_unavailable(connect: Connect, digits: Digits) -> None:
    with reserved_address() as address:
        client = connect(address)
        with pytest.raises(ServerUnavailable, match=rf"cannot connect to {address}: ") as caught:
            client.classify(digits[0])
    assert isinstance(caught.value.__cause__, grpc.RpcError)
    assert caught.value.code is UNAVAILABLE


def test_wait_for_ready_waits_for_an_absent_server(connect: Connect, digits: Digits) -> None:
    with reserved_address() as address:
        client = connect(address, wait_for_ready=True)
        with pytest.raises(DeadlineExceeded):
            client.classify(digits[0], timeout=0.2)
        late = ScriptedServer(address)
        assert client.classify(digits[0]).label == expected_label(digits[0])
        late.stop()


def test_client_survives_a_restart_of_the_server(connect: Connect, digits: Digits) -> None:
    with reserved_address() as address:
        client = connect(address, wait_for_ready=True)
        for _ in range(2):
            running = ScriptedServer(address)
            assert client.classify(digits[0]).label == expected_label(digits[0])
            running.stop()


def test_new_client_inherits_no_failed_connection(connect: Connect, digits: Digits) -> None:
    with reserved_address() as address:
        for _ in range(10):
            running = ScriptedServer(address)
            running.answer = failing_first(1, lambda: Failure(grpc.StatusCode.CANCELLED))
            client = connect(address)
            with pytest.raises(Cancelled):  # And not ServerUnavailable.
                client.classify(digits[0])
            client.close()
            running.stop()
