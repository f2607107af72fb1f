"""The page of metrics of a whole server, beside what its callers have counted."""

import math
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.harness.ports import free_port
from convserve import Client
from convserve_bench.generator import Calls, Generator
from convserve_bench.load import Load
from convserve_bench.tally import Tally
from convserve_bench.transport import Address
from convserve_bundle import distributions
from convserve_bundle.stability import LARGE
from convserve_protos.bundle_pb2 import PictureStatistics
from tests.bundles import write_photo_bundle
from tests.jpegs import jpeg_of
from tests.server.conftest import request_for
from tests.system.conftest import ROOT, WAIT_S, StartServer
from tests.system.test_supervision import until

CLASSIFY = "/convserve.v1.Classifier/Classify"
FIELDS = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", CLASSIFY.encode()),
    (b":authority", b"test"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
]
IMAGES = 3
REQUEST = request_for(*range(IMAGES)).SerializeToString()
MESSAGE = b"\0" + len(REQUEST).to_bytes(4, "big") + REQUEST
#: Calls wait so long for others, which makes latencies that nothing else does, ms.
DELAY_MS = 50
#: A machine that stalls holds up the callers as well, which the server cannot see.
_ATTEMPTS = 3


class Page:
    """What is on the page."""

    def __init__(self, port: int) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=WAIT_S) as answer:
            text = answer.read().decode()
        self._samples = [
            one for family in text_string_to_metric_families(text) for one in family.samples
        ]

    def sum(self, name: str, **labels: str) -> float:
        """The sum of the series that have these labels."""
        return sum(
            one.value
            for one in self._samples
            if one.name == f"convserve_{name}" and labels.items() <= one.labels.items()
        )

    def buckets(self, name: str) -> dict[float, float]:
        """Values up to each bound."""
        return {
            float(one.labels["le"]): one.value
            for one in self._samples
            if one.name == f"convserve_{name}_bucket"
        }


def nothing(since_s: float) -> None:
    """What is done while calls are made."""


def load(
    address: str, callers: int, rate: float | None, watch: Callable[[float], None] = nothing
) -> Tally:
    """Make calls for a while; returns what became of each of them."""
    host, port = address.split(":")
    calls = Calls(Address(socket.AF_INET, (host, int(port))), FIELDS, [MESSAGE])
    tally = Tally(IMAGES, 10)
    settings = Load(
        callers=callers, connections=8, seconds=2.0, warm_up_s=0, timeout_s=WAIT_S, rate=rate
    )
    generator = Generator(settings, calls, tally, lambda since_s, _: watch(since_s))
    generator.run()
    assert tally.seen == tally.histogram.count + tally.failures.total
    return tally


def quantile(share: float, buckets: dict[float, float]) -> float:
    """histogram_quantile() of Prometheus.

    Source: https://github.com/prometheus/prometheus/blob/main/promql/quantile.go (bucketQuantile).
    """
    bounds = sorted(buckets)
    rank = share * buckets[math.inf]
    bucket = next(number for number, bound in enumerate(bounds) if buckets[bound] >= rank)
    if bucket == len(bounds) - 1:
        return bounds[-2]
    start, below = (bounds[bucket - 1], buckets[bounds[bucket - 1]]) if bucket else (0.0, 0.0)
    part = (rank - below) / (buckets[bounds[bucket]] - below)
    return start + (bounds[bucket] - start) * part


def differences(tally: Tally, buckets: dict[float, float]) -> list[str]:
    """Which percentiles of the callers and of the page are more than a bucket apart."""
    found = []
    for share in (0.5, 0.9, 0.99):
        both = tally.histogram.percentile(share), quantile(share, buckets)
        first, second = (bisect_left(sorted(buckets), one) for one in both)
        if abs(first - second) > 1:
            found.append(f"{share:.0%}: {both[0]:.4f} s, and {both[1]:.4f} s on the page")
    return found


def test_counters_are_those_of_the_load_generator_also_after_a_kill(
    start_server: StartServer,
) -> None:
    port = free_port()
    server = start_server(
        "--metrics-port", str(port), "--workers", "2", "--max-delay-ms", str(DELAY_MS)
    )  # fmt: skip
    address = server.wait_until_serving()

    def answered(count: int) -> Page:
        """The page once so many calls are counted, which is soon after their answers."""
        until(lambda: Page(port).sum("calls_total", code="OK") >= count, f"{count} answered")
        return Page(port)

    calls, problems = 0, ["not measured"]
    before: dict[float, float] = {}
    for _ in range(_ATTEMPTS):
        # Open loop: who comes first waits longest, so that latencies are of all lengths.
        tally = load(address, 200, 200.0)
        assert not tally.failures.counts
        calls += tally.seen
        page = answered(calls)
        buckets = page.buckets("call_seconds")
        added = {bound: count - before.get(bound, 0.0) for bound, count in buckets.items()}
        problems, before = differences(tally, added), buckets
        if not problems:
            break
    assert problems == []
    assert page.sum("calls_total") == page.sum("calls_total", method=CLASSIFY, code="OK") == calls
    assert page.sum("images_total", model="mnist", version="1") == IMAGES * calls
    for name in ("call_seconds", "queue_seconds", "compute_seconds"):
        assert page.sum(f"{name}_count") == page.buckets(name)[math.inf] == calls
    assert page.sum("batch_images_sum") == IMAGES * calls
    assert page.sum("refused_total") == page.sum("cancelled_total") == 0

    # Many at once, and a worker is killed meanwhile.
    victims = server.worker_pids()[:1]

    def kill(since_s: float) -> None:
        if since_s >= 1.0 and victims:
            os.kill(victims.pop(), signal.SIGKILL)

    again = load(address, 64, None, kill)
    assert not victims
    cut = again.failures.counts.get("UNAVAILABLE", 0)
    assert again.failures.total == cut <= 64
    calls += again.histogram.count
    # Of an answer that was just sent its worker may not have lived to count it.
    page = answered(calls - 1)
    counted = page.sum("calls_total", code="OK")
    assert calls - 1 <= counted <= calls + cut
    assert page.sum("call_seconds_count") == counted
    until(lambda: Page(port).sum("workers", state="serving") == 2, "another worker")
    page = Page(port)
    assert page.sum("worker_restarts_total") == page.sum("worker_restarts_total", worker="1") == 1

    def waits() -> float:
        page = Page(port)
        return page.sum("queue_images") + page.sum("queue_work_seconds")

    # Nor in the worker that is gone, whatever it had last stated.
    until(lambda: waits() == 0, "the end of what waits")
    until(lambda: Page(port).sum("calls_in_flight") == 0, "no call in flight")
    assert page.sum("process_memory_bytes", process="supervisor") > 2**20
    assert page.sum("process_memory_bytes", process="worker-1") > 2**20
    assert page.sum("model_state", model="mnist", version="1", state="served") == 1
    assert page.sum("model_load_seconds", model="mnist") > 0
    assert page.sum("build_info", front="native", provider="CPUExecutionProvider") == 1
    assert page.sum("settings_info", workers="2", max_delay_ms=str(DELAY_MS)) == 1
    assert server.terminate() == 0


def test_server_does_not_start_when_the_port_is_in_use(models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        ended = subprocess.run(
            [
                sys.executable, "-m", "convserve_server", "--models", str(models), "--port", "0",
                "--metrics-port", port,
            ],
            cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S,
        )  # fmt: skip
    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in ended.stderr
    assert "--metrics-port" in ended.stderr


def test_supervisor_goes_on_while_readers_of_metrics_do_not(start_server: StartServer) -> None:
    port = free_port()
    server = start_server("--metrics-port", str(port), "--workers", "1")
    server.wait_until_serving()
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(30)]
    (worker,) = server.worker_pids()
    os.kill(worker, signal.SIGKILL)
    server.wait_for("ended with status -9")
    until(lambda: worker not in server.worker_pids() and server.worker_pids(), "a new worker")
    started = time.monotonic()
    assert server.terminate() == 0
    assert time.monotonic() - started < WAIT_S / 2
    for one in silent:
        one.close()


def test_page_says_how_far_images_are_from_those_of_the_training(
    start_server: StartServer, models: Path
) -> None:
    """Of a net that knows light pictures of 400 pixels a side and is asked about small red ones."""
    random = np.random.default_rng(1)
    known = PictureStatistics(
        brightness=distributions.summarise(random.normal(200, 20, 500)),
        size=distributions.summarise(random.normal(400, 20, 500)),
        confidence=distributions.summarise(np.full(500, 0.9)),
    )
    write_photo_bundle(models, statistics=known)
    write_photo_bundle(models, "unknown")
    port = free_port()
    server = start_server(
        "--metrics-port", str(port), "--workers", "2", "--drift-sample", "1000"
    )  # fmt: skip
    colours = {"model": "colours", "version": "1"}
    with Client(server.wait_until_serving()) as client:
        client.classify_images([jpeg_of("red")] * 3, model="unknown")

        def sampled() -> bool:
            """Asks once more; an image is looked at if none was for some milliseconds."""
            client.classify_images(jpeg_of("red"), model="colours")
            counts = [
                Page(port).sum("sampled_images_count", **colours, statistic=each) for each in names
            ]
            return min(counts) >= 10

        names = ("brightness", "size", "confidence")
        until(sampled, "some images are looked at")
    page = Page(port)
    for name in names:
        of = {**colours, "statistic": name}
        assert page.sum("model_drift_psi", **of) > LARGE
        assert page.sum("model_drift_psi", **of) > page.sum("model_drift_luck_psi", **of) > 0
    assert page.sum("sampled_images_count", **colours, statistic="contrast") == 0
    assert page.sum("sampled_images_count", model="unknown") == 0
