"""Lines of the access log of a worker, and ids of requests in answers and in the log."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from convserve_protos import classifier_pb2 as pb
from convserve_server.logs import JsonFormatter
from convserve_server.telemetry.access_log import AccessLine, AccessLog
from tests.server.conftest import SOON_S, WAIT_S, Serve, Served, request_for
from tests.server.http_client import PNG, HttpClient
from tests.server.transports.test_conformance import until

CLASSIFY = "/convserve.v1.Classifier/Classify"
ID = ("x-request-id", "order-66")


class Lines(logging.Handler):
    """Keeps what is logged, as JSON has it."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.all: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.all.append(json.loads(self.format(record)))

    def calls(self) -> list[dict[str, Any]]:
        """Those of the access log that are about a call."""
        return [one for one in self.all if "method" in one]


@pytest.fixture
def lines() -> Iterator[Lines]:
    one = Lines()
    logging.getLogger().addHandler(one)
    yield one
    logging.getLogger().removeHandler(one)


def ask(served: Served, *metadata: tuple[str, str], **fields: Any) -> Any:
    """Begin a call with header fields."""
    stub: Any = served.stub
    return stub.Classify.future(request_for(3, **fields), timeout=WAIT_S, metadata=metadata)


def trailers(call: Any) -> dict[str, Any]:
    """What is sent with the error of a call."""
    assert isinstance(call.exception(), grpc.RpcError)
    return dict(call.trailing_metadata())


def test_every_call_has_a_line(serve: Serve, front: str, lines: Lines) -> None:
    served = serve(front, access_log="all")
    ask(served, ID).result()
    ask(served, pixels=None, encoded=pb.EncodedImages(images=[PNG, PNG])).result()
    until(lambda: len(lines.calls()) == 2)
    one, other = lines.calls()
    assert one["logger"] == "convserve_server.access"
    assert one["level"] == "info"
    assert one["request_id"] == "order-66"
    assert one["peer"].startswith("ipv4:127.0.0.1:")
    assert one["method"] == CLASSIFY
    assert (one["model"], one["images"]) == ("mnist/1", 1)
    assert one["code"] == "OK"
    assert one["duration_ms"] > 0
    assert "reason" not in one
    assert "identity" not in one
    assert (other["model"], other["images"]) == ("mnist/1", 2)
    assert len(other["request_id"]) == 16


def test_line_says_all_as_text_too() -> None:
    line = AccessLine(
        "id-1", "ipv4:1.2.3.4:5", "kiosk", "/a.B/C", "mnist/1", 3, "INTERNAL", "INTERNAL_FAULT",
        1.25, "ab" * 16, "more under id x",
    )  # fmt: skip
    assert str(line) == (
        "call /a.B/C: INTERNAL after 1.250 ms; INTERNAL_FAULT; mnist/1, 3 images; from "
        f"ipv4:1.2.3.4:5; as 'kiosk'; id id-1; trace {'ab' * 16}; more under id x"
    )


def test_errors_are_ours_a_deadline_or_a_limit(serve: Serve, front: str, lines: Lines) -> None:
    # With a delay no call runs on the thread that has to hear of its end.
    served = serve(
        front, access_log="errors", max_queue=4, max_message_bytes=2**16, max_delay_ms=1.0
    )
    stub: Any = served.stub
    ask(served).result()
    for wrong in (request_for(3, model="none"), request_for(3, top_k=99)):
        with pytest.raises(grpc.RpcError):
            stub.Classify(wrong, timeout=WAIT_S)
    with pytest.raises(grpc.RpcError, match="larger than max"):
        stub.Classify(request_for(*[3] * 100), timeout=WAIT_S)
    served.engine.fault = RuntimeError("out of order")
    assert ask(served).code() is grpc.StatusCode.INTERNAL
    served.engine.fault = None
    served.engine.hold()
    late = stub.Classify.future(request_for(3), timeout=SOON_S)
    assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: {"INTERNAL", "DEADLINE_EXCEEDED"} <= {one["code"] for one in lines.calls()})
    served.engine.release()
    found = {one["code"]: one for one in lines.calls()}
    if front == "grpcio":  # Which refuses that by itself.
        found.setdefault("RESOURCE_EXHAUSTED", {"reason": "MESSAGE_TOO_LARGE"})
    assert {code: one["reason"] for code, one in found.items()} == {
        "RESOURCE_EXHAUSTED": "MESSAGE_TOO_LARGE",
        "DEADLINE_EXCEEDED": "DEADLINE_PASSED",
        "INTERNAL": "INTERNAL_FAULT",
    }
    assert found["INTERNAL"]["level"] == "warning"
    (fault,) = (one for one in lines.all if "fault_id" in one)
    assert fault["fault_id"] in found["INTERNAL"]["fault"]


def test_stream_that_ends_in_an_error_has_a_line(serve: Serve, front: str, lines: Lines) -> None:
    served = serve(front, access_log="all")
    stream: Any = served.channel.stream_stream("/convserve.v1.Classifier/StreamClassify")
    with pytest.raises(grpc.RpcError):
        list(stream(iter([b"\xff"]), timeout=WAIT_S, metadata=[ID]))
    until(lambda: bool(lines.calls()))
    (one,) = lines.calls()
    assert one["method"] == "/convserve.v1.Classifier/StreamClassify"
    assert (one["code"], one["request_id"]) == ("INVALID_ARGUMENT", "order-66")


def test_unknown_method_has_a_line(serve: Serve, front: str, lines: Lines) -> None:
    served = serve(front, access_log="all")
    method: Any = served.channel.unary_unary("/no.Such/Method")
    with pytest.raises(grpc.RpcError):
        method(b"", timeout=WAIT_S)
    until(lambda: bool(lines.calls()))
    assert lines.calls()[0]["code"] == "UNIMPLEMENTED"
    assert "/no.Such/Method" in lines.calls()[0]["method"]


def test_nothing_is_logged_while_it_is_off_and_follows_at_once(serve: Serve, lines: Lines) -> None:
    served = serve()
    ask(served).result()
    served.worker.follower.set_access_log("all", 1.0)
    ask(served, ID).result()
    until(lambda: bool(lines.calls()))
    served.worker.follower.set_access_log("errors", 1.0)
    ask(served).result()
    assert [one["request_id"] for one in lines.calls()] == ["order-66"]


def test_call_to_a_server_that_stops_has_a_line(serve: Serve, front: str, lines: Lines) -> None:
    served = serve(front, access_log="errors", lame_duck_s=0.0)
    ask(served).result()
    served.worker.stop()
    assert ask(served, ID).code() is grpc.StatusCode.UNAVAILABLE
    until(lambda: bool(lines.calls()))
    (one,) = lines.calls()
    assert (one["code"], one["reason"]) == ("UNAVAILABLE", "DRAINING")
    assert one["request_id"] == "order-66"


def test_share_is_of_calls_that_end_well() -> None:
    log = AccessLog("all", 0.25)
    kept = sum(log.wants(failed=False) for _ in range(10_000))
    assert 2_000 < kept < 3_000
    assert log.wants(failed=True)
    assert not AccessLog("all", 0.0).wants(failed=False)
    assert not AccessLog("errors", 1.0).wants(failed=False)


def test_flood_of_failures_is_bounded_and_counted(lines: Lines) -> None:
    now = 1000.0
    log = AccessLog("errors", clock=lambda: now)
    assert sum(log.wants(failed=True) for _ in range(5_000)) == 100
    now += 1.0
    assert sum(log.wants(failed=True) for _ in range(5_000)) == 10
    assert not lines.all
    now += 20.0
    assert not log.wants(failed=False)
    (report,) = lines.all
    assert report["message"] == "access log: 9890 lines of calls that failed were left out"
    log.close()
    assert len(lines.all) == 1


def test_failure_names_the_id_of_its_request(serve: Serve, front: str) -> None:
    served = serve(front)
    assert trailers(ask(served, ID, top_k=99))["x-request-id"] == "order-66"
    assert "x-request-id" not in trailers(ask(served, top_k=99))
    for wrong in ("", "a" * 129, "two words"):
        assert "x-request-id" not in trailers(ask(served, (ID[0], wrong), top_k=99))


def test_failure_names_the_id_that_the_log_has(serve: Serve, front: str, lines: Lines) -> None:
    served = serve(front, access_log="all", http=True)
    named = trailers(ask(served, top_k=99))["x-request-id"]
    until(lambda: bool(lines.calls()))
    assert lines.calls()[0]["request_id"] == named
    with HttpClient(served.http_port) as client:
        reply = client.ask("POST", "/v1/models/mnist:classify?top_k=99", PNG)
        assert reply.status == 400
        until(lambda: len(lines.calls()) == 2)
        assert lines.calls()[1]["request_id"] == reply.headers["x-request-id"]


def test_fault_of_one_call_is_logged_under_its_id(serve: Serve, front: str, lines: Lines) -> None:
    served = serve(front)
    served.engine.fault = RuntimeError("out of order")
    call = ask(served, ID)
    assert call.code() is grpc.StatusCode.INTERNAL
    until(lambda: bool(lines.calls()))
    (one,) = lines.calls()
    (fault,) = (each for each in lines.all if "fault_id" in each)
    assert one["request_id"] == "order-66"
    assert one["fault"] == call.details()
    assert fault["fault_id"] in one["fault"]
