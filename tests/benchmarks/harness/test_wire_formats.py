import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.harness import h2load, open_inference
from benchmarks.harness.answers import Questions, WrongAnswer
from benchmarks.harness.bundles import Bundle
from benchmarks.harness.client import Refused, WireQuestions, ask
from benchmarks.harness.h2load import H2loadDriver
from benchmarks.harness.load import LoadError, OwnDriver, Task
from benchmarks.harness.wire_formats import Base64, Base64Each, OpenInference, RawBytes
from tests.bundles import SHAPE, write_bundle

needs_h2load = pytest.mark.skipif(not H2loadDriver.is_installed(), reason="h2load not installed")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle(write_bundle(tmp_path_factory.mktemp("models")))


@contextmanager
def served(bundle: Bundle, callers: set[object] | None = None) -> Iterator[str]:
    """LitServe's and BentoML's bodies answered by the model over HTTP/1.1; gives the address.

    The other ends of all connections are added to callers.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:  # noqa: N802 - the name is the library's
            if callers is not None:
                callers.add(self.client_address)
            sent = json.loads(self.rfile.read(int(self.headers["content-length"])))
            try:
                if self.path == "/predict":
                    data = base64.b64decode(sent["pixels"])
                    pixels = np.frombuffer(data, np.uint8).reshape(sent["shape"])
                else:
                    images = [base64.b64decode(data) for data in sent["pixels"]]
                    pixels = np.frombuffer(b"".join(images), np.uint8).reshape(-1, *SHAPE)
                rows = bundle.probabilities(pixels).tolist()
                status, answer = 200, {"probabilities": rows} if self.path == "/predict" else rows
            except Exception as error:  # noqa: BLE001 - a server answers whatever happens
                status, answer = 500, {"error": type(error).__name__}
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            serving.join()


@pytest.mark.parametrize("wire_format", [Base64("/predict"), Base64Each("/classify")])
def test_answers_over_http_are_checked(bundle: Bundle, wire_format: Base64 | Base64Each) -> None:
    questions = WireQuestions.of(wire_format, Questions.of_pixels(bundle, 6))
    with served(bundle) as address:
        questions.check(address)
        with pytest.raises(WrongAnswer, match="probabilities differ"):
            replace(questions, rows=questions.rows + np.float32(2e-5)).check(address)
        with pytest.raises(Refused) as refused:
            ask(address, wire_format, questions.images[:1, 1:])
        assert refused.value.status == "HTTP 500"
        assert json.loads(refused.value.message)["error"]
    with pytest.raises(WrongAnswer, match="refused"):
        questions.check(address)


def test_answer_in_another_form_is_wrong(bundle: Bundle) -> None:
    questions = WireQuestions.of(Base64("/classify"), Questions.of_pixels(bundle, 1))
    with served(bundle) as address, pytest.raises(WrongAnswer):
        questions.check(address)


@needs_h2load
@pytest.mark.parametrize("most_at_once", [2, 3])
def test_h2load_keeps_a_connection_for_each_caller(
    bundle: Bundle, most_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(h2load, "_MOST_AT_ONCE", most_at_once)
    wire_format = Base64("/predict")
    questions = WireQuestions.of(wire_format, Questions.of_pixels(bundle, 2))
    callers = set[object]()
    with served(bundle, callers) as address:
        call = questions.call(0, 2)
        task = Task(
            address, call.body, call.least_reply_bytes, callers=3, connections=1, seconds=0.2,
            path=call.path, content_type=call.content_type,
        )  # fmt: skip
        load = H2loadDriver().run(task)
        assert len(load.latencies_ms) > 3
        assert load.latencies_ms.min() > 0
        assert len(callers) == 3
        with pytest.raises(LoadError, match="failed"):
            H2loadDriver().run(replace(task, request=wire_format.body(questions.images[:1, 1:])))
        with pytest.raises(LoadError, match="need h2load"):
            OwnDriver().run(task)


def test_raw_bytes_are_the_pixels_and_the_rows(bundle: Bundle) -> None:
    questions = Questions.of_pixels(bundle, 2)
    wire_format = RawBytes("/inference", questions.rows.shape[1])
    pixels = np.asarray(questions.images)
    assert wire_format.body(pixels) == pixels.tobytes()
    np.testing.assert_array_equal(wire_format.rows(questions.rows.tobytes()), questions.rows)
    with pytest.raises(ValueError, match="reshape"):
        wire_format.rows(b"1234")


def test_open_inference_has_raw_tensors() -> None:
    wire_format = OpenInference("mnist")
    pixels = np.arange(2 * 3, dtype=np.uint8).reshape(2, 3, 1, 1)
    body = wire_format.body(pixels)
    # Fields 1 and 7 of the specification, by their tags.
    assert body.startswith(b"\x0a\x05mnist")
    assert body.endswith(b"\x3a\x06" + pixels.tobytes())
    rows: NDArray[np.float32] = np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)
    response = open_inference.ModelInferResponse(raw_output_contents=[rows.tobytes()])
    response.outputs.add(shape=rows.shape)
    answer = response.SerializeToString()
    assert np.array_equal(wire_format.rows(answer), rows)
    assert answer.startswith(b"\x2a"), "outputs are field 5"
    with pytest.raises(ValueError, match="not enough values"):
        wire_format.rows(b"")
