"""What is in the header fields of a call, right or wrong, on every front."""

import base64
from urllib.parse import unquote

import pytest
from google.rpc import status_pb2

from benchmarks.harness.http2_frames import Flag, Kind, call_fields, frame
from benchmarks.harness.raw_http2 import RawConnection
from convserve_protos import classifier_pb2 as pb
from tests.server.conftest import Serve, answers, request_for
from tests.server.outcomes import CLOSED, changed, outcome, send_call
from tests.server.transports.test_conformance import CLASSIFY

SERVICE = "/convserve.v1.Classifier"
GOOD_FIELDS = call_fields(CLASSIFY)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param(changed(content_type="application/grpc+proto"), "OK", id="+proto"),
        # The specification has HTTP 415 for it; no front looks.
        pytest.param(changed(content_type="application/json"), "OK", id="not gRPC"),
        pytest.param(changed(content_type=None), "OK", id="no content-type"),
        pytest.param(changed(path=f"{SERVICE}/Nothing"), "UNIMPLEMENTED", id="unknown method"),
        pytest.param(changed(path="/no.Service/Classify"), "UNIMPLEMENTED", id="unknown service"),
        pytest.param(changed(path=f"{SERVICE}/classify"), "UNIMPLEMENTED", id="other case"),
        pytest.param(changed(path=f"{CLASSIFY}/"), "UNIMPLEMENTED", id="a slash too many"),
        pytest.param(changed(path="/"), "UNIMPLEMENTED", id="no service"),
        pytest.param(changed(path="*"), "UNIMPLEMENTED", id="asterisk"),
        pytest.param(changed(scheme="https"), "OK", id="scheme of a proxy"),
        pytest.param(changed(grpc_timeout="99999999H"), "OK", id="11,400 years"),
        pytest.param(changed(x="a" * 15_500), "OK", id="headers of almost 16 KiB"),
    ],
)
def test_request_is_taken_alike(
    serve: Serve, front: str, fields: list[tuple[str, str]], expected: str
) -> None:
    with RawConnection(serve(front, lame_duck_s=0.0).address) as raw:
        assert outcome(raw, send_call(raw, fields), expected) == expected


@pytest.mark.parametrize(
    ("fields", "grpcio", "native"),
    [
        pytest.param(changed(te=None), "INTERNAL_ERROR", "OK", id="no te"),
        pytest.param(changed(te="gzip"), "INTERNAL", "PROTOCOL_ERROR", id="other te"),
        pytest.param(changed(method="GET"), "INTERNAL_ERROR", "OK", id="GET"),
        pytest.param(changed(method=None), "INTERNAL_ERROR", "PROTOCOL_ERROR", id="no method"),
        pytest.param(changed(scheme=None), "INTERNAL_ERROR", "PROTOCOL_ERROR", id="no scheme"),
        pytest.param(changed(authority=None), "INTERNAL_ERROR", "OK", id="no authority"),
        pytest.param(changed(path=None), "INTERNAL_ERROR", "PROTOCOL_ERROR", id="no path"),
        pytest.param(changed(path=""), "UNIMPLEMENTED", "PROTOCOL_ERROR", id="empty path"),
        pytest.param(changed(path="Classify"), "UNIMPLEMENTED", "PROTOCOL_ERROR", id="no slash"),
        pytest.param(changed(path=f"{CLASSIFY}?a=1"), "UNIMPLEMENTED", "OK", id="query"),
        pytest.param(changed(connection="close"), "OK", "PROTOCOL_ERROR", id="connection"),
        pytest.param(changed(X_Who="a"), "INTERNAL", CLOSED, id="upper case"),
        pytest.param(changed(x="a\0b"), "OK", CLOSED, id="NUL in a value"),
        pytest.param([*GOOD_FIELDS, (":late", "1")], "INTERNAL", CLOSED, id="pseudo field last"),
        pytest.param([GOOD_FIELDS[0], *GOOD_FIELDS], "OK", "PROTOCOL_ERROR", id="method twice"),
        pytest.param(changed(x_bin="!"), "INTERNAL", "OK", id="no base64"),
        pytest.param(changed(grpc_timeout="soon"), "INTERNAL", "OK", id="no timeout"),
    ],
)
def test_request_is_taken_as_documented_for_the_front(
    serve: Serve, front: str, fields: list[tuple[str, str]], grpcio: str, native: str
) -> None:
    served = serve(front, lame_duck_s=0.0)
    expected = {"grpcio": grpcio, "native": native}[front]
    with RawConnection(served.address) as raw:
        assert outcome(raw, send_call(raw, fields), expected) == expected
    assert answers(served.classify(request_for(3)).result()) == [3]


def test_headers_over_the_limit_are_refused(serve: Serve, front: str) -> None:
    expected = {"grpcio": "RESOURCE_EXHAUSTED", "native": "HTTP 431"}[front]
    with RawConnection(serve(front, lame_duck_s=0.0).address) as raw:
        stream = raw.new_stream()
        block = raw.headers(changed(**{f"x{n}": "a" * 1000 for n in range(40)}), stream)[9:]
        parts = [block[start : start + 2**14] for start in range(0, len(block), 2**14)]
        for index, part in enumerate(parts):
            last = Flag.END_HEADERS if index == len(parts) - 1 else Flag.NONE
            raw.send(frame(Kind.CONTINUATION if index else Kind.HEADERS, last, stream, part))
        assert outcome(raw, stream, expected) == expected


def test_error_is_sent_alike(serve: Serve, front: str) -> None:
    with RawConnection(serve(front, lame_duck_s=0.0).address) as raw:
        stream = raw.ask(pb.ClassifyRequest(model="é%").SerializeToString(), CLASSIFY)
        headers = raw.answer(stream).headers
    assert (headers[":status"], headers["content-type"]) == ("200", "application/grpc")
    details = headers["grpc-status-details-bin"]
    assert "=" not in details, "padded"
    status = status_pb2.Status.FromString(base64.b64decode(details + "=" * (-len(details) % 4)))
    assert status.message == unquote(headers["grpc-message"]) == "no model 'é%'; loaded: mnist"
    assert str(status.code) == headers["grpc-status"]
