"""Traces and the access log of a whole server, and that neither holds what is nobody's business."""

import base64
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc
import pytest

from benchmarks.harness.ports import free_port
from convserve_protos.classifier_pb2_grpc import ClassifierStub
from convserve_server import main
from convserve_server.settings.setting import SettingError
from tests.bundles import digit_of
from tests.collector import Collector
from tests.server.http_client import PNG, HttpClient
from tests.system.conftest import WAIT_S, ServerProcess, StartServer
from tests.system.test_reload import Configured
from tests.system.test_serving import request_for
from tests.system.test_supervision import until

TRACE = "0af7651916cd43dd8448eb211c80319c"
SAMPLED = ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01")
KEY = "very-private-key"


@pytest.fixture
def collector() -> Iterator[Collector]:
    one = Collector()
    yield one
    one.close()


def classify(address: str, *metadata: tuple[str, str]) -> None:
    """A call over a connection of its own."""
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub: Any = ClassifierStub(channel)
        stub.Classify(request_for(3), timeout=WAIT_S, metadata=metadata)


def lines(server: ServerProcess) -> list[dict[str, Any]]:
    """What the access log has."""
    return [entry for entry in server.log if entry["logger"] == "convserve_server.access"]


@pytest.mark.parametrize("front", ["grpcio", "native"])
def test_two_workers_send_their_spans_before_they_end(
    start_server: StartServer, collector: Collector, front: str
) -> None:
    server = start_server("--workers", "2", "--front", front, "--traces", collector.url)
    address = server.wait_until_serving()
    # The kernel chooses for each connection: all 32 with one happens once in 2**31.
    for _ in range(32):
        classify(address, SAMPLED)
    assert server.terminate() == 0
    calls = [span for span in collector.spans if span.kind == "SERVER"]
    assert len(calls) == 32
    assert {call.trace for call in calls} == {TRACE}
    assert {call.resource["convserve.worker"] for call in calls} == {1, 2}
    assert not any(entry["level"] in ("error", "warning") for entry in server.log)


def test_log_and_traces_hold_no_key_no_pixels_and_no_names_of_files(
    start_server: StartServer, collector: Collector
) -> None:
    port = free_port()
    server = start_server(
        "--workers", "1", "--http-port", str(port), "--traces", collector.url,
        "--log-level", "debug", "--access-log", "all",
    )  # fmt: skip
    address = server.wait_until_serving()
    bearer = ("authorization", f"Bearer {KEY}")
    classify(address, SAMPLED, bearer)
    form = (
        b'--XX\r\nContent-Disposition: form-data; name="f"; filename="private-name.png"\r\n'
        b"Content-Type: image/png\r\n\r\n" + PNG + b"\r\n--XX--\r\n"
    )
    fields = dict([SAMPLED, bearer, ("Content-Type", "multipart/form-data; boundary=XX")])
    with HttpClient(port) as client:
        for target in ("mnist:classify", "mnist:classify?top_k=99", "none:classify"):
            client.ask("POST", f"/v1/models/{target}", form, fields)
    assert server.terminate() == 0
    assert len(lines(server)) == 4
    assert len([span for span in collector.spans if span.kind == "SERVER"]) == 4
    for text in (str(server.log), str(collector.spans)):
        for data in (PNG[:24], PNG[-24:], digit_of(3).tobytes()[:24]):
            assert data.hex() not in text
            assert base64.b64encode(data).decode() not in text
            assert str(data)[2:-1] not in text
        assert KEY not in text
        assert "private-name" not in text


def test_access_log_changes_at_once(start_server: StartServer, tmp_path: Path) -> None:
    one = Configured(start_server, tmp_path / "c.toml", "", "--workers", "1")
    pids = one.server.worker_pids()
    classify(one.address, ("x-request-id", "before"))
    assert one.reload('access_log = "all"\n').endswith("changed: access_log")

    def logged() -> bool:
        classify(one.address, ("x-request-id", "after"))
        return bool(lines(one.server))

    until(logged, "a line")
    assert one.server.worker_pids() == pids
    assert one.server.terminate() == 0
    assert {line["request_id"] for line in lines(one.server)} == {"after"}


def test_traces_without_opentelemetry_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = "opentelemetry.exporter.otlp.proto.grpc"
    monkeypatch.setattr(
        main, "find_spec", lambda name: None if name == missing else find_spec(name)
    )
    main.check_traces("")
    with pytest.raises(SettingError, match=r"pip install 'convserve\[tracing\]'"):
        main.check_traces("http://localhost:4317")


@pytest.mark.parametrize(
    ("url", "variables", "problem"),
    [
        ("localhost:4317", {}, "traces: expected a URL as http://collector:4317"),
        ("http://localhost", {"OTEL_BSP_MAX_QUEUE_SIZE": "1"}, "traces: expected valid variables"),
    ],
)
def test_wrong_traces_end_the_start_in_one_line(
    models: Path, url: str, variables: dict[str, str], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ran = subprocess.run(
        [
            sys.executable, "-m", "convserve_server.main", "--models", str(models),
            "--port", "0", "--workers", "1", "--traces", url,
        ],
        capture_output=True, text=True, timeout=WAIT_S,
    )  # fmt: skip
    assert ran.returncode
    assert problem in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stdout + ran.stderr
