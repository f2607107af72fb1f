"""The rules for Prometheus: each alert fires when it should, and does not when it should not."""

import json
import math
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from convserve.command.top.histograms import Histogram
from convserve_server.telemetry.metrics import METRICS
from tests.monitoring.prometheus import MONITORING
from tests.monitoring.queries import DASHBOARD, queries

pytestmark = pytest.mark.monitoring

RULES = sorted((MONITORING / "rules").glob("*.yml"))
INTERVAL_S = 15
ENDINGS = ("_bucket", "_sum", "_count")
ONE = 'job="convserve", instance="a:9464"'
TWO = 'job="convserve", instance="b:9464"'
MNIST = 'model="mnist", version="1"'

Series = dict[str, str]


@dataclass(frozen=True)
class Case:
    """An alert, and what it is about.

    Attributes:
        alert: its name.
        fires: series with which it fires, in promtool's notation, a value each 15 s.
        quiet: series with which it does not.
        about: labels of the alert that fires, beside its name and severity.
        minutes: after which that is so.
    """

    alert: str
    fires: Series
    quiet: Series
    about: str = 'job="convserve"'
    minutes: int = 20


def calls(code: str, each: int) -> Series:
    """So many calls more at each reading."""
    return {f'convserve_calls_total{{{ONE}, {MNIST}, code="{code}"}}': f"0+{each}x100"}


def refused(reason: str, each: int) -> Series:
    return {f'convserve_refused_total{{{ONE}, reason="{reason}"}}': f"0+{each}x100"}


def slow(over: int) -> Series:
    """Of 1000 calls at each reading, so many need 1 to 2 s, the others at most 0.5."""
    name = "convserve_call_seconds_bucket"
    return {
        f'{name}{{{ONE}, {MNIST}, le="0.5"}}': f"0+{1000 - over}x100",
        f'{name}{{{ONE}, {MNIST}, le="1.0"}}': f"0+{1000 - over}x100",
        f'{name}{{{ONE}, {MNIST}, le="2.0"}}': "0+1000x100",
        f'{name}{{{ONE}, {MNIST}, le="+Inf"}}': "0+1000x100",
    }


def queue(values: str, workers: int = 2) -> Series:
    return {
        f"convserve_queue_work_seconds{{{ONE}, {MNIST}}}": values,
        f'convserve_workers{{{ONE}, state="serving"}}': f"{workers}x100",
    }


def state(name: str, values: str = "1x100", version: int = 2) -> Series:
    labels = f'{ONE}, model="mnist", version="{version}", state="{name}"'
    return {f"convserve_model_state{{{labels}}}": values}


def drift(index: float, by_luck: float) -> Series:
    labels = f'{ONE}, {MNIST}, statistic="brightness"'
    return {
        f"convserve_model_drift_psi{{{labels}}}": f"{index}x100",
        f"convserve_model_drift_luck_psi{{{labels}}}": f"{by_luck}x100",
    }


def workers(serving: str) -> Series:
    return {
        f'convserve_workers{{{ONE}, state="serving"}}': serving,
        f'convserve_workers{{{ONE}, state="starting"}}': "1x100",
        f'convserve_workers{{{TWO}, state="serving"}}': "2x100",
    }


def restarts(values: str) -> Series:
    return {
        f'convserve_worker_restarts_total{{{ONE}, worker="1"}}': values,
        f'convserve_worker_restarts_total{{{ONE}, worker="2"}}': "0x100",
    }


OF_ONE = ONE
OF_VERSION = 'job="convserve", model="mnist", version="2"'
CRITICAL = {"ConvserveAbsent", "ConvservePageDown", "ConvserveNoWorker", "ConvserveFaults"}
CASES = (
    Case("ConvserveAbsent", {}, {f"up{{{ONE}}}": "0x100"}),
    Case("ConvservePageDown", {f"up{{{ONE}}}": "0x100"}, {f"up{{{ONE}}}": "0 1x100"}, OF_ONE),
    Case("ConvserveNoWorker", workers("0x100"), workers("2 0 0 1x100"), OF_ONE),
    # Three ends within 15 minutes; one a reading would be far more.
    Case("ConvserveWorkerRestarts", restarts("0x30 1 1 2 3x60"), restarts("0x30 1x70"), OF_ONE),
    Case(
        "ConvserveFaults",
        calls("OK", 950) | calls("INTERNAL", 50),
        calls("OK", 900) | calls("INTERNAL", 5) | calls("INVALID_ARGUMENT", 100),
    ),
    Case(
        "ConvserveOverload",
        calls("OK", 900) | calls("RESOURCE_EXHAUSTED", 100) | refused("QUEUE_FULL", 100),
        calls("OK", 990) | refused("QUEUE_FULL", 10) | refused("NOT_FOUND", 500),
    ),
    Case(
        "ConvserveExpired",
        calls("OK", 950) | {f'convserve_expired_total{{{ONE}, stage="batch"}}': "0+50x100"},
        calls("OK", 950) | {f'convserve_expired_total{{{ONE}, stage="batch"}}': "0+5x100"},
    ),
    Case("ConvserveSlow", slow(20), slow(5), f'job="convserve", {MNIST}'),
    # Of 8 s of work, each of two workers has 4; 1.5 s of work are 0.75 s.
    Case("ConvserveQueueLong", queue("8x100"), queue("1.5x100"), OF_ONE),
    Case("ConvserveModelRefused", state("refused"), state("refused", "1 1 0x100"), OF_VERSION),
    Case("ConvserveModelLoading", state("loading"), state("served"), OF_VERSION),
    Case(
        "ConvserveDrift",
        drift(0.3, 0.05),
        drift(0.2, 0.05),
        f'job="convserve", {MNIST}, statistic="brightness"',
    ),
)


def test_drift_that_luck_explains_is_no_alert(tmp_path: Path) -> None:
    firing = 'ALERTS{alertname="ConvserveDrift", alertstate="firing"}'
    check_queries(tmp_path, [(drift(0.3, 0.5), {firing: []})], minutes=20)


def run_promtool(*arguments: str | Path) -> str:
    """Runs promtool, which must succeed; returns what it printed."""
    done = subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_promtool_accepts_configuration_and_rules() -> None:
    run_promtool("check", "config", MONITORING / "prometheus.yml")
    checked = run_promtool("check", "rules", "--lint-fatal", *RULES)
    assert checked.count("SUCCESS") == len(RULES)


def test_names_in_rules_and_dashboard_are_those_of_the_page() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    used = "\n".join([each.read_text() for each in RULES] + [q.text for q in queries(dashboard)])
    endings = {"counter": ("",), "gauge": ("",), "info": ("",), "histogram": ENDINGS}
    exported = {each.name + ending for each in METRICS for ending in endings[each.kind]}
    assert set(re.findall(r"\bconvserve_\w+", used)) <= exported
    recorded = set(re.findall(r"- record: (\S+)", used))
    assert set(re.findall(r"\bconvserve:[\w:]+", used)) == recorded


def test_every_alert_has_a_case() -> None:
    alerts = re.findall(r"- alert: (\w+)", (MONITORING / "rules" / "alerts.yml").read_text())
    assert [case.alert for case in CASES] == alerts


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_alert_fires_when_it_should_and_only_then(case: Case, tmp_path: Path) -> None:
    severity = "critical" if case.alert in CRITICAL else "warning"
    firing = f'ALERTS{{alertname="{case.alert}", alertstate="firing"}}'
    labels = f'{firing[:-1]}, severity="{severity}", {case.about}}}'
    expected: tuple[tuple[Series, list[tuple[str, float]]], ...] = (
        (case.fires, [(labels, 1.0)]),
        (case.quiet, []),
    )
    check_queries(
        tmp_path,
        [(series, {firing: samples}) for series, samples in expected],
        minutes=case.minutes,
    )


@pytest.mark.parametrize("share", [0.01, 0.5, 0.95, 0.99, 0.9999])
def test_quantiles_of_convserve_top_are_those_of_prometheus(share: float, tmp_path: Path) -> None:
    counts = {0.00005: 0, 0.0001: 3, 0.0002: 3, 0.0005: 1207, 0.001: 1500, math.inf: 1501}
    buckets = {
        f'x_bucket{{le="{str(bound).replace("inf", "+Inf")}"}}': f"{count}x10"
        for bound, count in counts.items()
    }
    ours = Histogram({bound: float(count) for bound, count in counts.items()}).quantile(share)
    assert ours is not None
    query = f"histogram_quantile({share}, x_bucket)"
    check_queries(tmp_path, [(buckets, {query: [("{}", ours)]})], minutes=1)


def check_queries(
    folder: Path,
    cases: Sequence[tuple[Series, Mapping[str, Sequence[tuple[str, float]]]]],
    minutes: float,
) -> None:
    """Has promtool check what queries give, with the rules of deploy/monitoring.

    Args:
        folder: for its file.
        cases: series, and of each query the labels and values that it must give.
        minutes: after the beginning of the series.
    """
    tests = [
        {
            "interval": f"{INTERVAL_S}s",
            "input_series": [{"series": key, "values": each} for key, each in series.items()],
            "promql_expr_test": [
                {
                    "expr": query,
                    "eval_time": f"{round(minutes * 60)}s",
                    "exp_samples": [{"labels": key, "value": value} for key, value in samples],
                }
                for query, samples in queries.items()
            ],
        }
        for series, queries in cases
    ]
    rules = [str(each) for each in RULES]
    # JSON is YAML, too.
    file = folder / "test.yml"
    known = {"rule_files": rules, "evaluation_interval": f"{INTERVAL_S}s", "tests": tests}
    file.write_text(json.dumps(known))
    run_promtool("test", "rules", file)
