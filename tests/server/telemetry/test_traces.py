"""Spans of a worker, as a collector receives them."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from benchmarks.harness.ports import free_port
from convserve_protos import classifier_pb2 as pb
from convserve_server.core.errors import PermissionDenied
from convserve_server.protocols.base import Call, Interceptor, UnaryHandler
from tests.certificates import Authority
from tests.collector import Collector, Span
from tests.server.conftest import WAIT_S, Serve, Served, request_for
from tests.server.http_client import PNG, HttpClient
from tests.server.transports.test_conformance import until

CLASSIFY = "convserve.v1.Classifier/Classify"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = ("traceparent", f"00-{TRACE}-{PARENT}-01")
UNSAMPLED = ("traceparent", f"00-{TRACE}-{PARENT}-00")


@pytest.fixture
def serve(collector: Collector, serve: Serve) -> Serve:
    """Its workers stop before the collector does, which they would wait for in vain."""
    return serve


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    # One test has it end and come back, and meanwhile the port is nobody else's.
    one = Collector(free_port())
    yield one
    one.close()


def ask(served: Served, *metadata: tuple[str, str], **fields: Any) -> Any:
    """Begin a call with header fields."""
    stub: Any = served.stub
    return stub.Classify.future(request_for(3, **fields), timeout=WAIT_S, metadata=metadata)


def wait_for_ends(served: Served) -> None:
    """Waits until all calls have ended, which is after their answers, and have their spans."""
    assert served.worker._router.wait_idle(WAIT_S) == 0


def calls_in(spans: list[Span]) -> list[Span]:
    return [span for span in spans if span.kind == "SERVER"]


def children(spans: list[Span], parent: Span) -> dict[str, Span]:
    return {span.name: span for span in spans if span.parent == parent.id}


def test_call_is_a_part_of_its_callers_trace(
    serve: Serve, collector: Collector, front: str
) -> None:
    served = serve(front, traces=collector.url)
    before = time.time_ns()
    ask(served, SAMPLED, ("tracestate", "vendor=1")).result()
    after = time.time_ns()
    spans = collector.wait_for_names(**{CLASSIFY: 1, "run": 1})
    (call,) = calls_in(spans)
    assert (call.trace, call.parent, call.state) == (TRACE, PARENT, "vendor=1")
    assert not call.failed
    assert before <= call.start_ns <= call.end_ns <= after
    assert call.resource["service.name"] == "convserve"
    attributes = dict(call.attributes)
    assert attributes.pop("network.peer.address") == "127.0.0.1"
    assert attributes.pop("network.peer.port") > 0
    assert attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": CLASSIFY,
        "rpc.response.status_code": "OK",
        "network.protocol.name": "http",
        "network.protocol.version": "2",
        "convserve.model": "mnist/1",
        "convserve.images": 1,
    }
    parts = children(spans, call)
    assert list(parts) == ["receive", "queue", "answer"]
    (batch,) = (span for span in spans if span.name == "batch")
    run = children(spans, batch)["run"]
    moments = [
        call.start_ns,
        parts["receive"].end_ns,
        parts["queue"].start_ns,
        parts["queue"].end_ns,
        run.start_ns,
        run.end_ns,
        parts["answer"].start_ns,
        parts["answer"].end_ns,
        call.end_ns,
    ]
    assert moments == sorted(moments)


def test_state_that_is_not_valid_is_left_out_in_silence(
    serve: Serve, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve(traces=collector.url)
    ask(served, SAMPLED, ("tracestate", "not=a=state,@")).result()
    (call, *_) = calls_in(collector.wait_for_names(**{CLASSIFY: 1}))
    assert (call.trace, call.state) == (TRACE, "")
    assert not [one for one in caplog.records if one.name.startswith("convserve_server.telemetry")]


def test_batch_has_a_trace_of_its_own_and_links_to_its_calls(
    serve: Serve, collector: Collector, front: str
) -> None:
    served = serve(front, traces=collector.url)
    served.engine.hold()
    first = ask(served, UNSAMPLED)
    served.engine.wait_entered()
    others = [ask(served, SAMPLED), ask(served, SAMPLED), ask(served)]
    batcher = served.worker.repository.get("mnist", None).batcher
    until(lambda: batcher.waiting == 3)
    served.engine.release()
    for call in [first, *others]:
        call.result()
    spans = collector.wait_for_names(**{CLASSIFY: 2, "run": 1})
    calls = calls_in(spans)
    (batch,) = (span for span in spans if span.name == "batch")
    assert len(calls) == 2
    assert batch.trace != TRACE
    assert not batch.parent
    assert set(batch.links) == {(call.trace, call.id) for call in calls}
    assert all(call.links == ((batch.trace, batch.id),) for call in calls)
    assert batch.attributes == {
        "convserve.model": "mnist/1",
        "convserve.images": 3,
        "convserve.traced_calls": 2,
    }


def test_request_of_several_batches_has_links_to_all(serve: Serve, collector: Collector) -> None:
    served = serve(traces=collector.url, max_batch=2)
    stub: Any = served.stub
    stub.Classify(request_for(1, 2, 3), timeout=WAIT_S, metadata=[SAMPLED])
    spans = collector.wait_for_names(**{CLASSIFY: 1, "run": 2})
    (call,) = calls_in(spans)
    batches = [span for span in spans if span.name == "batch"]
    assert set(call.links) == {(batch.trace, batch.id) for batch in batches}


def test_files_have_a_span_of_decoding(serve: Serve, collector: Collector, front: str) -> None:
    served = serve(front, traces=collector.url)
    ask(served, SAMPLED, pixels=None, encoded=pb.EncodedImages(images=[PNG])).result()
    spans = collector.wait_for_names(**{CLASSIFY: 1, "run": 1})
    (call,) = calls_in(spans)
    parts = children(spans, call)
    assert list(parts) == ["receive", "decode", "queue", "answer"]
    assert parts["receive"].end_ns <= parts["decode"].start_ns
    assert parts["decode"].end_ns <= parts["queue"].start_ns


def test_call_over_http_is_a_part_of_its_callers_trace(serve: Serve, collector: Collector) -> None:
    served = serve(http=True, traces=collector.url)
    with HttpClient(served.http_port) as client:
        reply = client.ask("POST", "/v1/models/mnist:classify", PNG, {SAMPLED[0]: SAMPLED[1]})
    assert reply.status == 200
    spans = collector.wait_for_names(**{CLASSIFY: 1, "run": 1})
    (call,) = calls_in(spans)
    assert (call.trace, call.parent) == (TRACE, PARENT)
    assert call.attributes["network.protocol.version"] == "1.1"
    assert "rpc.system.name" not in call.attributes
    assert "decode" in children(spans, call)


def test_each_message_of_a_stream_is_a_call(serve: Serve, collector: Collector, front: str) -> None:
    served = serve(front, traces=collector.url)
    stub: Any = served.stub
    requests = [
        pb.StreamClassifyRequest(request=request_for(number, id=str(number))) for number in range(3)
    ]
    answers = list(stub.StreamClassify(iter(requests), timeout=WAIT_S, metadata=[SAMPLED]))
    assert len(answers) == 3
    spans = collector.wait_for_names(**{CLASSIFY: 3})
    assert {(call.trace, call.parent) for call in calls_in(spans)} == {(TRACE, PARENT)}


def test_call_that_an_interceptor_refuses_is_traced(
    serve: Serve, collector: Collector, front: str
) -> None:
    class Refusing(Interceptor):
        def unary(self, method: str, handler: UnaryHandler) -> UnaryHandler:
            def refuse(call: Call) -> None:
                raise PermissionDenied("not you")

            return refuse

    served = serve(front, traces=collector.url, interceptors=[Refusing()])
    with pytest.raises(grpc.RpcError):
        ask(served, SAMPLED).result()
    (call,) = collector.wait_for_names(**{CLASSIFY: 1})
    assert call.parent == PARENT
    assert call.attributes["rpc.response.status_code"] == "PERMISSION_DENIED"
    assert call.attributes["error.type"] == "PERMISSION_DENIED"
    assert call.attributes["convserve.reason"] == "PERMISSION_DENIED"
    assert not call.failed


def test_fault_of_the_engine_is_seen_in_call_and_batch(
    serve: Serve, collector: Collector, front: str
) -> None:
    served = serve(front, traces=collector.url)
    served.engine.fault = RuntimeError("out of order")
    with pytest.raises(grpc.RpcError):
        ask(served, SAMPLED).result()
    spans = collector.wait_for_names(**{CLASSIFY: 1, "run": 1})
    failed = {span.name for span in spans if span.failed}
    assert failed == {CLASSIFY, "batch", "run"}
    assert "out of order" not in str(spans)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_calls_without_a_traceparent_are_traced_by_share(
    serve: Serve, collector: Collector, front: str, share: float
) -> None:
    served = serve(front, traces=collector.url, trace_share=share)
    for metadata in ([UNSAMPLED], [], [("traceparent", "nonsense")]):
        ask(served, *metadata).result()
    ask(served, SAMPLED).result()
    # Those before have ended before it.
    spans = collector.wait_for(lambda spans: any(span.parent == PARENT for span in spans))
    own = [call for call in calls_in(spans) if not call.parent]
    assert len(own) == (2 if share else 0)
    assert len({call.trace for call in own}) == len(own)


def test_what_is_left_is_sent_when_the_server_stops(
    serve: Serve, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "tenant=ours")
    served = serve(traces=collector.url)
    ask(served, SAMPLED).result()
    assert not collector.spans
    served.worker.stop()
    assert len(calls_in(collector.spans)) == 1
    assert collector.headers[0]["tenant"] == "ours"


def test_collector_that_is_away_is_logged_once_and_calls_go_on(
    serve: Serve,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "convserve_server.telemetry.tracing")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    port = collector.port
    collector.close()
    served = serve(traces=collector.url)

    def lines() -> list[str]:
        ours = (one for one in caplog.records if one.name.endswith("telemetry.tracing"))
        return [one.getMessage() for one in ours]

    for _ in range(3):
        ask(served, SAMPLED).result()
        served.worker.traces.flush(WAIT_S)  # type: ignore[union-attr]
    (lost,) = lines()
    assert f"127.0.0.1:{port}" in lost
    assert "UNAVAILABLE" in lost
    back = Collector(port)
    try:
        deadline = time.monotonic() + WAIT_S
        while len(lines()) == 1 and time.monotonic() < deadline:
            ask(served, SAMPLED).result()
            served.worker.traces.flush(WAIT_S)  # type: ignore[union-attr]
        assert calls_in(back.spans)
    finally:
        back.close()
    assert lines()[1:] == [f"traces are sent again to http://127.0.0.1:{port}"]


def test_collector_that_does_not_answer_holds_up_no_stop(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        served = serve(traces=f"http://127.0.0.1:{silent.getsockname()[1]}")
        ask(served, SAMPLED).result()
        wait_for_ends(served)
        served.worker.traces.flush(0.1)  # type: ignore[union-attr]
        assert "traces: the last ones could not be sent within 0.1 s" in caplog.text
        served.worker.traces.close()  # type: ignore[union-attr]


@pytest.mark.parametrize("known", [True, False])
def test_collector_with_tls_is_checked_by_the_systems_authorities(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    variable = "OTEL_EXPORTER_OTLP_CERTIFICATE"
    monkeypatch.setenv(variable, "")
    monkeypatch.delenv(variable)
    monkeypatch.setenv("SSL_CERT_FILE", str((authority if known else other).ca))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60" if known else "0.2")
    collector = Collector(tls=authority.server())
    try:
        served = serve(traces=collector.url)
        ask(served, SAMPLED).result()
        wait_for_ends(served)
        served.worker.traces.flush(WAIT_S)  # type: ignore[union-attr]
        assert len(calls_in(collector.spans)) == known
    finally:
        collector.close()
