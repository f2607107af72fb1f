"""What KEDA asks Prometheus: the queries of deploy/kubernetes, with a server and with numbers."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from convserve import Client
from tests.bundles import digit_of, write_bundle
from tests.monitoring.loaded_server import serving
from tests.monitoring.prometheus import prometheus, until
from tests.monitoring.queries import Api
from tests.monitoring.test_rules import Series, check_queries

pytestmark = pytest.mark.monitoring

FILE = Path(__file__).parents[2] / "deploy/kubernetes/components/autoscaling/scaled-object.yaml"
OBJECT = yaml.safe_load(FILE.read_text())
MORE, FEWER = (trigger["metadata"] for trigger in OBJECT["spec"]["triggers"])

#: What the Prometheus Operator adds to the series of a pod.
LABELS = {
    "namespace": "convserve",
    "service": "convserve",
    "pod": "convserve-a",
    "endpoint": "metrics",
}


def value(api: Api, trigger: dict[str, Any]) -> float | None:
    """The one number that a query has, None if it has none."""
    found = api.query(trigger["query"])
    if not found:
        return None
    (one,) = found
    assert one["metric"] == {}, "KEDA takes one number without labels"
    return float(one["value"][1])


@contextmanager
def flood(address: str) -> Iterator[None]:
    """Calls of many images, so many at a time that work waits as long as this lasts."""
    ended = threading.Event()
    digits = np.stack([digit_of(index % 10) for index in range(256)])

    def call() -> None:
        with Client(address, timeout=120) as client:
            while not ended.is_set():
                client.classify(digits, model="mnist")

    threads = [threading.Thread(target=call) for _ in range(12)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_queries_are_0_while_a_server_keeps_up_and_grow_when_it_does_not(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    with (
        serving(tmp_path / "models", "--max-batch", "1") as server,
        prometheus(tmp_path, server.page, labels=LABELS) as api,
    ):
        until(lambda: value(api, MORE) is not None, "the page is read")
        assert value(api, MORE) == 0
        until(lambda: value(api, FEWER) is not None, "rates are known")
        with flood(server.address):
            until(lambda: (value(api, MORE) or 0) > 0, "work waits")
            until(lambda: (value(api, FEWER) or 0) > 0.1, "engines work")


def pod(name: str, *, work: str, engine: str, workers: int, namespace: str = "convserve") -> Series:
    """The series of a pod with two models, one of which has nothing to do."""
    labels = f'job="convserve", namespace="{namespace}", pod="{name}"'
    busy, idle = f'{labels}, model="a", version="1"', f'{labels}, model="b", version="1"'
    return {
        f"convserve_queue_work_seconds{{{busy}}}": work,
        f"convserve_queue_work_seconds{{{idle}}}": "0x100",
        f"convserve_engine_seconds_total{{{busy}}}": engine,
        f"convserve_engine_seconds_total{{{idle}}}": "0x100",
        f'convserve_workers{{{labels}, state="serving"}}': f"{workers}x100",
        f'convserve_workers{{{labels}, state="starting"}}': "0x100",
    }


def replicas(trigger: dict[str, Any], total: float) -> int:
    """What Kubernetes makes of a value of the kind AverageValue."""
    return math.ceil(total / float(trigger["threshold"]))


def test_numbers_are_sums_over_pods_of_seconds_and_shares_for_each_worker(tmp_path: Path) -> None:
    # Of 0.4 s that wait, each of two workers has 0.2; a peak within a minute counts. Engines of the
    # first work 15 s of each 15 with two workers, 50 %; those of the second 3.75 s with one, 25 %.
    series = (
        pod("a", work="0.1x40 0.4 0.1x60", engine="0+15x100", workers=2)
        | pod("b", work="0.3x100", engine="0+3.75x100", workers=1)
        | pod("c", work="9x100", engine="0+15x100", workers=1, namespace="other")
    )
    # At 10.5 minutes, 30 s behind the peak; 40 readings of 15 s are 10 minutes.
    expected = {MORE["query"]: [("{}", 0.5)], FEWER["query"]: [("{}", 0.75)]}
    check_queries(tmp_path, [(series, expected)], minutes=10.5)
    assert (replicas(MORE, 0.5), replicas(FEWER, 0.75)) == (5, 2)
