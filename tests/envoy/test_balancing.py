"""Which server gets a call, and that none is lost with a server."""

from pathlib import Path

import pytest

from benchmarks.harness.traffic import AsyncTraffic, Counts, ThreadTraffic, going_on
from benchmarks.robustness.lost_calls import Way, add, lose
from tests.envoy.conftest import Edge, new_edge

pytestmark = pytest.mark.envoy

CALLS = 2000
RETRIES = "cluster.convserve.upstream_rq_retry"
HEALTHY = "cluster.convserve.membership_healthy"


def test_calls_of_one_connection_go_to_all_servers(edge: Edge) -> None:
    before = {number: server.rows() for number, server in edge.fleet.running.items()}
    with edge.client() as client:
        for question in edge.questions * 6:
            assert client.classify(question.image).label == question.label
    answered = [server.rows() - before[number] for number, server in edge.fleet.running.items()]
    assert sum(answered) == 6 * len(edge.questions)
    assert min(answered) > 0
    assert edge.envoy.counters(HEALTHY)[HEALTHY] == 3


@pytest.mark.parametrize("way", [ThreadTraffic, AsyncTraffic])
def test_no_call_is_lost_while_servers_are_killed_stopped_brought_back_and_added(
    program: Path, models: Path, tmp_path: Path, way: Way
) -> None:
    with new_edge(program, models, tmp_path) as edge:
        counts = Counts(edge.questions)
        with going_on(way(edge.envoy.tls_address, 32, **edge.options), counts):
            lose(edge.fleet, counts, CALLS)
            add(edge.fleet, edge.names)
        assert counts.ended >= CALLS
        assert dict(counts.lost) == {}
        assert edge.envoy.counters(RETRIES)[RETRIES] > 0  # The client itself does not try again.
