"""What became of calls over a raw connection, in words that a table of cases can hold."""

import contextlib
from collections.abc import Sequence

import grpc

from benchmarks.harness.http2_frames import Code, call_fields, message
from benchmarks.harness.raw_http2 import RawConnection
from convserve_protos import classifier_pb2 as pb
from tests.server.conftest import answers, request_for
from tests.server.transports.test_conformance import CLASSIFY

GOOD = request_for(5).SerializeToString()
#: For cases that a front does not answer.
SILENCE = "not answered"
CLOSED = "connection closed"

STATUSES = {code.value[0]: code.name for code in grpc.StatusCode}


def changed(**changes: str | None) -> list[tuple[str, str]]:
    """The fields of a good call, some with other values or left out, or with more of them.

    Names are written with _ for -; those of pseudo fields, as method, without the colon.
    """
    fields = dict(call_fields(CLASSIFY))
    for name, value in changes.items():
        key = f":{name}" if f":{name}" in fields else name.replace("_", "-")
        if value is None:
            del fields[key]
        else:
            fields[key] = value
    return [*fields.items()]


def send_call(
    raw: RawConnection, fields: Sequence[tuple[str, str]], body: bytes = message(GOOD)
) -> int:
    """Send a whole call, as far as the server reads it; returns its stream."""
    stream = raw.new_stream()
    with contextlib.suppress(OSError):
        raw.send(raw.headers(fields, stream))
        raw.data(body, stream, end=True)
    return stream


def outcome(raw: RawConnection, stream: int, expected: str) -> str:
    """How a call ended: a gRPC status, an HTTP status, or what HTTP/2 has for it.

    Anything is waited for but silence; that is what there is when a later call has its answer.
    """
    answer = raw.answers[stream]
    if expected == SILENCE:
        assert is_served(raw)
    else:
        raw.answer(stream)
    if answer.status == 0:
        response = pb.ClassifyResponse.FromString(bytes(answer.data[5:]))
        assert answers(response) == [5]
    if answer.status is not None:
        return STATUSES[answer.status]
    if answer.ended:
        return f"HTTP {answer.headers[':status']}"
    if answer.reset is not None:
        return Code(answer.reset).name
    return CLOSED if raw.closed else SILENCE


def is_served(raw: RawConnection) -> bool:
    """Whether a call on a connection is answered."""
    stream = send_call(raw, call_fields(CLASSIFY))
    return raw.answer(stream).status == 0
