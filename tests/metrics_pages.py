"""A metrics page as a server has it, and an HTTP server that answers with it."""

import ssl
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

#: Bounds of the histograms of times, s: each at most twice the last.
BOUNDS_S = [5e-5 * 2**step for step in range(20)] + [30.0]
BATCH_BOUNDS = [2.0**step for step in range(13)]

#: The names of a server's metrics, with their labels. Counters get "_total".
COUNTERS = {
    "convserve_calls": ("method", "model", "version", "code"),
    "convserve_images": ("model", "version"),
    "convserve_engine_seconds": ("model", "version"),
    "convserve_refused": ("reason",),
    "convserve_expired": ("stage",),
    "convserve_cancelled": (),
    "convserve_worker_restarts": ("worker",),
}
HISTOGRAMS = {
    "convserve_call_seconds": BOUNDS_S,
    "convserve_queue_seconds": BOUNDS_S,
    "convserve_decode_seconds": BOUNDS_S,
    "convserve_compute_seconds": BOUNDS_S,
    "convserve_batch_images": BATCH_BOUNDS,
}
GAUGES = {
    "convserve_queue_images": ("model", "version"),
    "convserve_queue_work_seconds": ("model", "version"),
    "convserve_calls_in_flight": (),
    "convserve_model_state": ("model", "version", "state"),
    "convserve_model_load_seconds": ("model", "version"),
    "convserve_engine_memory_bytes": ("model", "version"),
    "convserve_process_memory_bytes": ("process",),
    "convserve_workers": ("state",),
    "convserve_models_in_other": (),
    "convserve_build_info": ("version", "python", "onnxruntime", "front", "provider"),
}


class FakeMetrics:
    """The numbers of a server that has just started, with one model, mnist/1."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._metrics: dict[str, Any] = {}
        for name, labels in COUNTERS.items():
            self._metrics[name] = Counter(name, "-", labels, registry=self._registry)
        for name, bounds in HISTOGRAMS.items():
            self._metrics[name] = Histogram(
                name, "-", ("model", "version"), registry=self._registry, buckets=bounds
            )
        for name, labels in GAUGES.items():
            self._metrics[name] = Gauge(name, "-", labels, registry=self._registry)
        self.set("build_info", 1, "0.1.0", "3.11.2", "1.27.0", "native", "CPUExecutionProvider")
        self.set("workers", 2, "serving")
        self.set("process_memory_bytes", 45 << 20, "supervisor")
        for worker in ("1", "2"):
            self.set("process_memory_bytes", 210 << 20, f"worker-{worker}")
            self.add("worker_restarts", 0, worker)
        self.set("model_state", 1, "mnist", "1", "served")

    def __getitem__(self, name: str) -> Any:
        return self._metrics[f"convserve_{name}"]

    def add(self, name: str, amount: float, *labels: str) -> None:
        """Let a counter grow; its labels in the order above."""
        (self[name].labels(*labels) if labels else self[name]).inc(amount)

    def set(self, name: str, value: float, *labels: str) -> None:
        """Give a gauge a value; its labels in the order above."""
        (self[name].labels(*labels) if labels else self[name]).set(value)

    def calls(
        self, number: int, seconds: float = 0.001, model: str = "mnist", version: str = "1"
    ) -> None:
        """Count calls that were answered, each with one image, in batches of eight."""
        method = "/convserve.v1.Classifier/Classify"
        self.add("calls", number, method, model, version, "OK")
        self.add("images", number, model, version)
        for name in ("call", "queue", "compute"):
            times = self[f"{name}_seconds"].labels(model, version)
            for _ in range(number):
                times.observe(seconds if name == "call" else seconds / 3)
        self.add("engine_seconds", number / 8 * seconds / 3, model, version)
        for _ in range(number // 8):
            self["batch_images"].labels(model, version).observe(8)

    def text(self) -> bytes:
        """The page."""
        return generate_latest(self._registry)


class MetricsServer:
    """Answers with the page of `metrics`, or with `answer` if that is set.

    Attributes:
        metrics: Of the page.
        answer: Status and body of all answers; None: the page.
        key: That callers must send; empty: none.
        seen: Headers of the last call.
    """

    def __init__(self, port: int = 0, context: ssl.SSLContext | None = None) -> None:
        self.metrics = FakeMetrics()
        self.answer: tuple[int, bytes] | None = None
        self.key = ""
        self.seen: Mapping[str, str] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.seen = dict(self.headers)
                status, body = outer.answer or (200, outer.metrics.text())
                if outer.key and self.headers["Authorization"] != f"Bearer {outer.key}":
                    status, body = 401, b""
                self.send_response(status)
                self.send_header("Content-Type", CONTENT_TYPE_LATEST)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        self.url = f"http{'' if context is None else 's'}://127.0.0.1:{self.port}/metrics"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        """Answer no more; the port is free."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
