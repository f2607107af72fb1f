"""What is in the DATA of a call, right or wrong, on every front."""

import gzip
import zlib

import pytest

from benchmarks.harness.http2_frames import Flag, Kind, call_fields, frame, message
from benchmarks.harness.raw_http2 import RawConnection
from tests.server.conftest import Serve, answers, request_for
from tests.server.outcomes import GOOD, SILENCE, changed, is_served, outcome, send_call
from tests.server.transports.test_conformance import CLASSIFY

GZIP, DEFLATE, UNKNOWN = (changed(grpc_encoding=name) for name in ("gzip", "deflate", "zippy"))
PLAIN = call_fields(CLASSIFY)
#: Of a length that no front takes, and of none that it has.
HUGE, TORN = message(GOOD, size=2**32 - 1), message(GOOD, size=10_000)


@pytest.mark.parametrize(
    ("fields", "body", "expected"),
    [
        pytest.param(PLAIN, message(GOOD), "OK", id="one message"),
        pytest.param(PLAIN, message(GOOD) * 2, "OK", id="the first of two is used"),
        pytest.param(GZIP, message(GOOD), "OK", id="gzip agreed, not used"),
        pytest.param(GZIP, message(gzip.compress(GOOD), compressed=True), "OK", id="gzip"),
        pytest.param(GZIP, message(GOOD, compressed=True), "INTERNAL", id="no gzip after all"),
        pytest.param(PLAIN, message(GOOD, compressed=True), "INTERNAL", id="gzip not agreed"),
        pytest.param(
            GZIP, message(gzip.compress(bytes(5000)), compressed=True), "RESOURCE_EXHAUSTED",
            id="over the limit when unzipped",
        ),
    ],
)  # fmt: skip
def test_message_is_taken_alike(
    serve: Serve, front: str, fields: list[tuple[str, str]], body: bytes, expected: str
) -> None:
    with RawConnection(serve(front, max_message_bytes=4096, lame_duck_s=0.0).address) as raw:
        assert outcome(raw, send_call(raw, fields, body), expected) == expected
        assert is_served(raw)


@pytest.mark.parametrize(
    ("fields", "body", "grpcio", "native"),
    [
        pytest.param(PLAIN, b"", SILENCE, "INTERNAL", id="no message"),
        pytest.param(PLAIN, b"\0\0", SILENCE, "INTERNAL", id="half a length"),
        pytest.param(PLAIN, TORN, SILENCE, "INTERNAL", id="cut short"),
        pytest.param(PLAIN, HUGE, "RESOURCE_EXHAUSTED", "INTERNAL", id="cut short, of 4 GiB"),
        pytest.param(
            DEFLATE, message(zlib.compress(GOOD), compressed=True), "OK", "UNIMPLEMENTED",
            id="deflate",
        ),
        pytest.param(UNKNOWN, message(GOOD), "INTERNAL", "UNIMPLEMENTED", id="unknown encoding"),
    ],
)  # fmt: skip
def test_message_is_taken_as_documented_for_the_front(
    serve: Serve,
    front: str,
    fields: list[tuple[str, str]],
    body: bytes,
    grpcio: str,
    native: str,
) -> None:
    served = serve(front, lame_duck_s=0.0)
    expected = {"grpcio": grpcio, "native": native}[front]
    with RawConnection(served.address) as raw:
        assert outcome(raw, send_call(raw, fields, body), expected) == expected
        assert is_served(raw)
    assert answers(served.classify(request_for(3)).result()) == [3]


def test_announced_size_alone_is_refused_by_grpcio_and_waited_for_by_native(
    serve: Serve, front: str
) -> None:
    expected = {"grpcio": "RESOURCE_EXHAUSTED", "native": SILENCE}[front]
    with RawConnection(serve(front, max_message_bytes=4096, lame_duck_s=0.0).address) as raw:
        stream = raw.new_stream()
        raw.send(raw.headers(PLAIN, stream))
        raw.data(message(b"", size=4097), stream)
        assert outcome(raw, stream, expected) == expected


def test_message_that_dribbles_in_is_answered(serve: Serve, front: str) -> None:
    with RawConnection(serve(front, lame_duck_s=0.0).address) as raw:
        stream = raw.new_stream()
        raw.send(raw.headers(PLAIN, stream))
        body = message(GOOD)
        for index in range(len(body)):
            raw.data(body[index : index + 1], stream)
        raw.send(frame(Kind.DATA, Flag.END_STREAM, stream))
        assert outcome(raw, stream, "OK") == "OK"


def test_flag_that_is_none_does_no_harm(serve: Serve, front: str) -> None:
    with RawConnection(serve(front, lame_duck_s=0.0).address) as raw:
        stream = send_call(raw, PLAIN, b"\2" + message(GOOD)[1:])
        # grpcio leaves the call alone, or takes the message for an empty one.
        assert is_served(raw)
        assert raw.answers[stream].status != 0
        if front == "native":
            assert outcome(raw, stream, "INTERNAL") == "INTERNAL"


def test_call_begins_on_grpcio_with_the_message_and_on_native_at_its_end(
    serve: Serve, front: str
) -> None:
    with RawConnection(serve(front, lame_duck_s=0.0).address) as raw:
        stream = raw.ask(GOOD, CLASSIFY, end=False)
        expected = {"grpcio": "OK", "native": SILENCE}[front]
        assert outcome(raw, stream, expected) == expected
        raw.send(frame(Kind.DATA, Flag.END_STREAM, stream))
        assert outcome(raw, stream, "OK") == "OK"
