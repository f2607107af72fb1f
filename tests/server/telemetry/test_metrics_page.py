"""The page of metrics, as a reader of Prometheus sees it."""

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text_families

from convserve_bundle.stability import Known, by_luck, stability_index
from convserve_server.telemetry.collector import MetricsPage
from convserve_server.telemetry.layouts import BOUNDS, SIZE_BOUNDS, VERSIONS
from convserve_server.telemetry.metrics import BUILD, METRICS, SETTINGS
from convserve_server.telemetry.server_state import ModelState, ServerState, StoreState
from convserve_server.telemetry.shared_statistics import SharedStatistics

ROOT = Path(__file__).parents[3]
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
CLASSIFY = "/convserve.v1.Classifier/Classify"

STATE = ServerState(
    serving=2,
    starting=1,
    restarts={1: 0, 2: 3},
    processes={"supervisor": [os.getpid()], "worker-1": [os.getpid(), os.getpid()], "worker-2": []},
    models=[
        ModelState("mnist", 3, "served", 1.5, 2**20),
        ModelState("mnist", 4, "loading"),
    ],
    provider="CPUExecutionProvider",
    store=StoreState(answers=False, reached=1.5e9),
)


def page_of(counts: SharedStatistics, state: ServerState = STATE) -> MetricsPage:
    build = {name: name.upper() for name in BUILD.labels if name != "provider"}
    settings = {name: name.upper() for name in SETTINGS.labels}
    return MetricsPage(counts.totals, lambda: state, build, settings)


def counts_of_everything() -> SharedStatistics:
    counts = SharedStatistics()
    counts.batch("mnist/3", 2, 0.002, [99.990, 99.9975], 0.02, 100.0)
    counts.decoded("mnist/3", 1, 0.0, 0.0004)
    for seconds in (0.011, 0.0041):
        counts.finished(CLASSIFY, "mnist/3", 0, "", seconds)
    counts.finished(CLASSIFY, "mnist/3", 8, "QUEUE_FULL", 0.0)
    counts.finished(CLASSIFY, "mnist/3", 1, "CANCELLED", 0.001)
    counts.finished("/grpc.health.v1.Health/Check", "", 0, "", 0.0001)
    counts.refused(CLASSIFY, "QUEUE_FULL")
    counts.expired("decode", 1)
    counts.set_now(4, [("mnist/3", 12, 0.25)])
    counts.expects("mnist/3", {"brightness": Known((0.5, 2.0), (0, 40, 0))})
    for brightness in (0.75, 1.0, 9.0):
        counts.sampled("mnist/3", {"brightness": brightness}, time.monotonic())
    return counts


def samples(page: MetricsPage) -> dict[str, float]:
    """The value of each series, by its name and labels."""
    text = page.render("")[0].decode()
    return {
        f"{one.name}{dict(sorted(one.labels.items()))}": one.value
        for family in text_families(text)
        for one in family.samples
    }


def test_page_has_what_was_counted_and_how_the_server_is() -> None:
    found = samples(page_of(counts_of_everything()))

    def value(name: str, labels: Mapping[str, str]) -> float:
        return found[f"convserve_{name}{dict(sorted(labels.items()))}"]

    version = {"model": "mnist", "version": "3"}
    calls = {"method": CLASSIFY, **version}
    assert value("calls_total", {**calls, "code": "OK"}) == 2
    assert value("calls_total", {**calls, "code": "RESOURCE_EXHAUSTED"}) == 1
    health = {"method": "/grpc.health.v1.Health/Check", "model": "", "version": "", "code": "OK"}
    assert value("calls_total", health) == 1
    assert value("images_total", version) == 2
    assert value("engine_seconds_total", version) == pytest.approx(0.002)
    assert value("refused_total", {"reason": "QUEUE_FULL"}) == 1
    assert value("expired_total", {"stage": "decode"}) == 1
    assert value("expired_total", {"stage": "batch"}) == 0
    assert value("cancelled_total", {}) == 1
    # Of calls that were answered, and each bucket with those before it.
    assert value("call_seconds_count", version) == 2
    assert value("call_seconds_sum", version) == pytest.approx(0.0151)
    buckets = [
        value("call_seconds_bucket", {**version, "le": bound})
        for bound in ("0.003", "0.005", "0.01", "0.02", "30.0", "+Inf")
    ]
    assert buckets == [0, 1, 1, 2, 2, 2]
    assert value("queue_seconds_count", version) == value("compute_seconds_count", version) == 2
    assert value("queue_seconds_sum", version) == pytest.approx(0.0085)
    assert value("compute_seconds_sum", version) == pytest.approx(0.004)
    assert value("decode_seconds_bucket", {**version, "le": "0.0005"}) == 1
    assert value("batch_images_bucket", {**version, "le": "1.0"}) == 0
    assert value("batch_images_bucket", {**version, "le": "2.0"}) == 1
    assert value("batch_images_sum", version) == 2
    assert value("queue_images", version) == 12
    assert value("queue_work_seconds", version) == 0.25
    assert value("calls_in_flight", {}) == 4
    assert value("models_in_other", {}) == 0
    brightness = {**version, "statistic": "brightness"}
    psi = stability_index((0, 40, 0), (0, 2, 1))
    assert value("model_drift_psi", brightness) == pytest.approx(psi)
    assert value("model_drift_luck_psi", brightness) == pytest.approx(by_luck((0, 40, 0), 3))
    bins = [
        value("sampled_images_bucket", {**brightness, "le": le}) for le in ("0.5", "2.0", "+Inf")
    ]
    assert bins == [0, 2, 3]
    assert value("sampled_images_sum", brightness) == 10.75
    assert value("model_state", {**version, "state": "served"}) == 1
    assert value("model_state", {"model": "mnist", "version": "4", "state": "loading"}) == 1
    assert sum("model_state" in name for name in found) == 2
    assert value("model_load_seconds", version) == 1.5
    assert value("engine_memory_bytes", version) == 2**20
    assert value("worker_restarts_total", {"worker": "2"}) == 3
    assert value("worker_restarts_total", {"worker": "1"}) == 0
    assert value("store_up", {}) == 0
    assert value("store_answered_timestamp_seconds", {}) == 1.5e9
    assert value("workers", {"state": "serving"}) == 2
    assert value("workers", {"state": "starting"}) == 1
    own = value("process_memory_bytes", {"process": "supervisor"})
    assert own > 2**20
    assert value("process_memory_bytes", {"process": "worker-1"}) == pytest.approx(2 * own, rel=0.1)
    provider = {"provider": "CPUExecutionProvider"}
    build = {name: name.upper() for name in BUILD.labels} | provider
    assert value("build_info", build) == 1
    assert value("settings_info", {name: name.upper() for name in SETTINGS.labels}) == 1


def test_page_has_the_names_kinds_and_labels_that_are_stated_and_no_others() -> None:
    page = page_of(counts_of_everything())
    text, kind = page.render("")
    assert kind.startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_families(text.decode())}
    stated = {metric.name.removesuffix("_total"): metric for metric in METRICS}
    assert families.keys() == stated.keys()
    for name, metric in stated.items():
        family = families[name]
        assert family.type == {"info": "gauge"}.get(metric.kind, metric.kind)
        assert family.documentation == metric.help
        assert family.samples
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == {*metric.labels}


def test_bins_from_0_on_have_sum_and_count() -> None:
    """A black picture has brightness 0, and so the first bound is below 0."""
    counts = SharedStatistics()
    counts.expects("mnist/3", {"brightness": Known((-1e-45, 0.0, 8.0), (0, 5, 5, 0))})
    counts.sampled("mnist/3", {"brightness": 0.0}, time.monotonic())
    counts.sampled("mnist/3", {"brightness": 4.0}, time.monotonic())
    found = {key: value for key, value in samples(page_of(counts)).items() if "sampled" in key}
    assert list(found.values()) == [1, 2, 2, 2, 4.0]  # up to 0, 8, all; count, sum
    assert "'le': '-" not in str(found)


def test_page_is_openmetrics_for_those_who_ask_for_it() -> None:
    page = page_of(counts_of_everything())
    text, kind = page.render(f"{OPEN_METRICS},text/plain;version=0.0.4;q=0.5")
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    parse: Any = getattr(openmetrics, "text_string_to_metric_families")  # noqa: B009 - untyped
    assert {family.name: family.type for family in parse(text.decode())} == {
        metric.name.removesuffix("_total").removesuffix("_info"): metric.kind for metric in METRICS
    }


def test_bounds_are_on_the_page() -> None:
    found = samples(page_of(counts_of_everything()))
    for name, bounds in (("call_seconds", BOUNDS), ("batch_images", SIZE_BOUNDS)):
        there = [key for key in found if key.startswith(f"convserve_{name}_bucket")]
        edges = [float(re.findall(r"'le': '(.*?)'", key)[0]) for key in there]
        assert edges == [*bounds, float("inf")]


def test_page_of_a_server_that_has_done_nothing_has_the_counters_at_zero() -> None:
    found = samples(page_of(SharedStatistics(), ServerState()))
    assert found["convserve_cancelled_total{}"] == found["convserve_calls_in_flight{}"] == 0
    assert found["convserve_workers{'state': 'serving'}"] == 0


def test_states_are_as_many_as_models_may_be_counted() -> None:
    models = [ModelState("mnist", version, "found") for version in range(1, VERSIONS + 100)]
    models.append(ModelState("mnist", 9999, "served", 1.0, None))
    found = samples(page_of(SharedStatistics(), ServerState(models=models)))
    states = [key for key in found if "model_state" in key]
    assert len(states) == VERSIONS
    assert "convserve_model_state{'model': 'mnist', 'state': 'served', 'version': '9999'}" in states


def test_docs_have_the_same_table() -> None:
    text = (ROOT / "docs/metrics.md").read_text()
    rows = re.findall(r"^\| `(convserve_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", text, re.MULTILINE)
    assert rows == [
        (
            metric.name,
            metric.kind,
            ", ".join(f"`{label}`" for label in metric.labels),
            metric.help,
        )
        for metric in METRICS
    ]
