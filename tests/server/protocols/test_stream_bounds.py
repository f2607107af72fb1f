"""What a stream may hold, and what becomes of it when its client does not read or goes away."""

import contextlib
import threading
import time
from collections.abc import Callable

import grpc
import pytest

from benchmarks.harness.http2_frames import Setting, call_fields, message, open_window
from benchmarks.harness.raw_http2 import RawConnection, Timeout
from convserve_protos import classifier_pb2 as pb
from convserve_server.protocols import streams
from convserve_server.protocols.convserve_v1.service import SERVICE, ConvserveV1
from tests.server.conftest import WAIT_S, Serve, Served, answers, request_for
from tests.server.protocols.test_streams import Outgoing
from tests.server.transports.test_conformance import until

STREAM = "/convserve.v1.Classifier/StreamClassify"
#: Nothing may be answered on any stream.
SHUT: dict[int, int] = {Setting.INITIAL_WINDOW_SIZE: 0}


def handler_of(served: Served) -> streams.RequestStreams:
    service = served.worker._router._services[SERVICE]
    assert isinstance(service, ConvserveV1)
    return service._streams


def requests(count: int, name: str = "x" * 500) -> bytes:
    """Requests on the wire, each of which is answered with an error of more than its size."""
    return b"".join(
        message(
            pb.StreamClassifyRequest(
                request=pb.ClassifyRequest(id=str(n), model=name)
            ).SerializeToString()
        )
        for n in range(count)
    )


def settled(count: Callable[[], int]) -> int:
    """What a count comes to that has not changed for a while."""
    last, since = count(), time.monotonic()

    def still() -> bool:
        nonlocal last, since
        if (now := count()) != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since > 0.3

    until(still)
    return last


def flood(raw: RawConnection, data: bytes) -> threading.Thread:
    """Send on a new stream for as long as the server reads it; returns the thread that does."""
    stream = raw.new_stream()
    raw.send(raw.headers(call_fields(STREAM), stream))

    def send() -> None:
        # The windows stay shut, or the test is over.
        with contextlib.suppress(OSError, Timeout):
            raw.data(data, stream)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    return sender


def test_answers_that_are_not_read_stop_the_reading_of_their_stream(
    serve: Serve, front: str
) -> None:
    served = serve(front, grace_s=1.0)
    with RawConnection(served.address, SHUT) as raw:
        flood(raw, requests(20_000))
        until(lambda: served.worker.answered() > streams.MAX_HELD // 2)
        # Beyond the limit of a stream there is what the way to the client buffers: 2 MiB at most.
        assert settled(served.worker.answered) < 10_000
        assert answers(served.classify(request_for(7)).result()) == [7]


def test_stream_whose_client_goes_away_leaves_nothing(serve: Serve, front: str) -> None:
    served = serve(front)
    handler = handler_of(served)
    free = handler._budget.free
    served.engine.hold()
    outgoing = Outgoing()
    # The native front does not see that a client has gone whose requests wait to be read.
    more = 500 if front == "grpcio" else 0
    outgoing.send(*[request_for(1, id=str(n)) for n in range(streams.MAX_HELD - 1 + more)])
    batcher = served.worker.repository.get("mnist", None).batcher
    replies = served.stub.StreamClassify(iter(outgoing))
    until(lambda: batcher.waiting > streams.MAX_HELD - 100)
    assert settled(lambda: batcher.waiting) <= streams.MAX_HELD
    replies.cancel()
    until(lambda: batcher.waiting == 0)
    until(lambda: not handler._open)
    assert handler._budget.free == free
    assert not served.worker._router._open
    outgoing.end()


def test_streams_share_the_bytes_that_a_worker_may_hold(serve: Serve, front: str) -> None:
    size = 2**19
    served = serve(front, max_stream_bytes=size, grace_s=1.0)
    handler = handler_of(served)
    with RawConnection(served.address, SHUT) as raw:
        for _ in range(4):
            flood(raw, requests(10_000))
        until(lambda: len(handler._open) == 4)
        until(lambda: handler._budget.free < size // 4)
        settled(served.worker.answered)
        # Each went one request beyond what was free.
        assert handler._budget.free > -4 * 2 * streams.REQUEST_BYTES
        # Another one goes on all the same.
        outgoing = Outgoing()
        outgoing.send(*[request_for(n % 10, id=str(n)) for n in range(100)])
        outgoing.end()
        got = {r.id: answers(r.response) for r in served.stub.StreamClassify(iter(outgoing))}
        assert got == {str(n): [n % 10] for n in range(100)}


def test_large_messages_count_by_their_bytes(serve: Serve, front: str) -> None:
    size = 2**22
    served = serve(front, max_stream_bytes=size, grace_s=1.0)
    handler = handler_of(served)
    data = b"".join(
        message(
            pb.StreamClassifyRequest(
                request=pb.ClassifyRequest(id=f"{n}-{'x' * 2**20}")
            ).SerializeToString()
        )
        for n in range(20)
    )
    with RawConnection(served.address, SHUT) as raw:
        flood(raw, data)
        until(lambda: served.worker.answered() > 1)
        assert settled(served.worker.answered) < 8
        assert handler._budget.free > -(2**21)


def test_client_that_reads_nothing_for_long_loses_its_answers(serve: Serve, front: str) -> None:
    served = serve(front, grace_s=1.0)
    handler = handler_of(served)
    free = handler._budget.free
    handler._patience_s = 0.5
    with RawConnection(served.address, SHUT) as raw:
        stream = raw.new_stream()
        raw.send(raw.headers(call_fields(STREAM), stream))
        raw.data(requests(10_000), stream, end=True)
        until(lambda: any(one._discarding for one in handler._open))
        assert handler._budget.free == free
        raw.send(open_window(stream, 2**30))
        assert raw.answer(stream).status == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        message_text = raw.answers[stream].headers["grpc-message"]
        assert message_text == "answers: expected a read within 0.5 s, got none"
    until(lambda: not handler._open)


def test_client_that_goes_away_without_reading_is_noticed(serve: Serve, front: str) -> None:
    served = serve(front, grace_s=1.0)
    handler = handler_of(served)
    handler._patience_s = 0.5
    raw = RawConnection(served.address, SHUT)
    sender = flood(raw, requests(10_000))
    until(lambda: bool(handler._open))
    settled(served.worker.answered)
    raw.close()
    sender.join(WAIT_S)
    until(lambda: not handler._open)


def test_drain_waits_for_no_client_that_went_away_without_reading(serve: Serve, front: str) -> None:
    served = serve(front, grace_s=10 * WAIT_S)
    handler = handler_of(served)
    handler._stopping_patience_s = 0.5
    raw = RawConnection(served.address, SHUT)
    sender = flood(raw, requests(10_000))
    until(lambda: bool(handler._open))
    settled(served.worker.answered)
    raw.close()
    sender.join(WAIT_S)
    ended: list[int] = []
    stopping = threading.Thread(target=lambda: ended.append(served.worker.stop()))
    stopping.start()
    stopping.join(2 * WAIT_S)
    assert ended == [0]


@pytest.mark.parametrize("kind", ["stream", "watch"])
def test_drain_ends_in_its_grace_while_a_client_reads_nothing(
    serve: Serve, front: str, kind: str
) -> None:
    served = serve(front, grace_s=1.5)
    with RawConnection(served.address, SHUT) as raw:
        if kind == "stream":
            flood(raw, requests(10_000))
            until(lambda: served.worker.answered() > streams.MAX_HELD // 2)
            settled(served.worker.answered)
        else:
            watch = raw.ask(b"", "/grpc.health.v1.Health/Watch")
            raw.wait(lambda: bool(raw.answers[watch].headers))
        ended: list[int] = []
        stopping = threading.Thread(target=lambda: ended.append(served.worker.stop()))
        stopping.start()
        stopping.join(WAIT_S)
        assert ended == [0]
