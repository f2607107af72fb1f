"""The dashboard for Grafana: every query runs in a Prometheus, and nearly all have data."""

import json
from collections.abc import Iterator

import pytest

from tests.monitoring.prometheus import prometheus, until
from tests.monitoring.queries import DASHBOARD, Api, Query, filled_in, queries

pytestmark = pytest.mark.monitoring

#: Of a page that was read for some seconds, from which rules have made numbers.
READ_OFTEN = (
    'count_over_time(up{job="convserve"}[1m]) > 8 and on (job) convserve:fault_share:5m >= 0'
)

QUERIES = list(queries(json.loads(DASHBOARD.read_text())))

#: Have data only where something went wrong.
MAY_BE_EMPTY = {"annotation Alerts"}


@pytest.fixture(scope="module")
def api(page: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A Prometheus that has read the page some times."""
    with prometheus(tmp_path_factory.mktemp("prometheus"), page) as api:
        until(lambda: bool(api.query(READ_OFTEN)), "the page is read, and rules are computed")
        yield api


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.panel)
def test_query_of_the_dashboard_is_answered(api: Api, query: Query) -> None:
    found = api.query(filled_in(query.text))
    print(query.text, found)
    assert found or query.panel in MAY_BE_EMPTY
