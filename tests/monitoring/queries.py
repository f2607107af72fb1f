"""Every query of a Grafana dashboard, run: `python -m tests.monitoring.queries [URL]`.

Nothing else checks them: promtool reads no dashboards. Each query gets a line with how many series
answer it, or the error, which is also exit status 1. URL is that of a Prometheus [default:
http://localhost:9090].
"""

import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).parents[2] / "deploy/monitoring/grafana/dashboards/convserve.json"

#: What Grafana puts in place of its variables where everything is chosen.
VARIABLES = {"$__rate_interval": "1m", "$instance": ".+", "$model": ".*"}


class QueryFailed(Exception):
    """Prometheus has refused a query; the text says why."""


@dataclass(frozen=True)
class Query:
    """A query of a dashboard.

    Attributes:
        panel: the title of its panel, or what else it is of.
        text: in PromQL.
    """

    panel: str
    text: str


def queries(dashboard: Mapping[str, Any]) -> Iterator[Query]:
    """Yields every query of a dashboard as it has them, with Grafana's variables in them."""
    for panel in dashboard["panels"]:
        for each in (panel, *panel.get("panels", ())):
            for target in each.get("targets", ()):
                yield Query(each["title"], target["expr"])
    for annotation in dashboard["annotations"]["list"]:
        yield Query(f"annotation {annotation['name']}", annotation["expr"])
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = _label_values(variable["query"]["query"])
            yield Query(f"variable {variable['name']}", f"group by ({label}) ({metric})")


def _label_values(text: str) -> tuple[str, str]:
    """Returns metric and label of Grafana's label_values(METRIC, LABEL)."""
    metric, label = text.removeprefix("label_values(").removesuffix(")").rsplit(",", 1)
    return metric.strip(), label.strip()


def filled_in(text: str, variables: Mapping[str, str] = VARIABLES) -> str:
    """Returns a query with values in place of Grafana's variables.

    Raises:
        ValueError: It has another variable.
    """
    for name, value in variables.items():
        text = text.replace(name, value)
    if "$" in text:
        raise ValueError(f"expected only the variables {', '.join(variables)}, got {text}")
    return text


class Api:
    """The HTTP interface of a Prometheus.

    Args:
        url: of it, as http://localhost:9090.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def get(self, path: str, parameters: Mapping[str, str] | None = None) -> Any:
        """Returns the data of an answer.

        Raises:
            QueryFailed: The answer is an error.
            OSError: There is no answer.
        """
        url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters or {})}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise QueryFailed(error.read().decode(errors="replace")) from error

    def query(self, text: str) -> list[dict[str, Any]]:
        """Returns the series, each with `metric` and `value`, that a query has now.

        Raises:
            QueryFailed: The query is wrong.
            OSError: There is no answer.
        """
        found: list[dict[str, Any]] = self.get("query", {"query": text})["result"]
        return found


def main(arguments: list[str]) -> int:
    """Runs every query of the dashboard; returns 1 if one fails."""
    api = Api(arguments[0] if arguments else "http://localhost:9090")
    failed = 0
    for query in queries(json.loads(DASHBOARD.read_text())):
        try:
            answer = f"{len(api.query(filled_in(query.text))):4} series"
        except QueryFailed as error:
            failed, answer = 1, f"error {error}"
        print(f"{answer}  {query.panel}: {query.text}")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
