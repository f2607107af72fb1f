"""The profile `monitoring` of docker-compose.yml: Prometheus reads the pages of all servers."""

import json
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.containers.engine import MAKE_S, until
from benchmarks.containers.stack import ROOT, Stack

# The first makes the images, and the stack's job trains.
pytestmark = [pytest.mark.compose, pytest.mark.timeout(1.5 * MAKE_S)]

PROFILE = ("--profile", "monitoring")
STAND_IN = Path(__file__).with_name("prometheus.Dockerfile")
#: Any free ones, of this machine.
PORTS = {"CONVSERVE_PROMETHEUS_PORT": "0", "CONVSERVE_GRAFANA_PORT": "0"}


def image_of_prometheus() -> str:
    (image,) = re.findall(
        r"image: (prom/prometheus:\S+)", (ROOT / "docker-compose.yml").read_text()
    )
    return str(image)


@pytest.fixture(scope="module")
def prometheus(stack: Stack) -> Iterator[str]:
    """The container of the service, from the official image where there is a way to have it."""
    image = image_of_prometheus()
    if stack.engine.try_docker("image", "inspect", image).returncode and (
        stack.engine.try_docker("pull", image).returncode
    ):
        folder = STAND_IN.parent
        stack.engine.docker("build", "-q", "--network", "host", "-f", STAND_IN, "-t", image, folder)
    stack.compose(*PROFILE, "up", "-d", "--no-deps", "prometheus", **PORTS)
    (container,) = stack.containers("prometheus")
    yield container
    stack.compose(*PROFILE, "rm", "-sf", "prometheus", **PORTS)


def ask(stack: Stack, path: str, **parameters: str) -> Any:
    """What Prometheus answers to a server's container, by the name of the service."""
    (server, *_) = stack.containers("server")
    url = f"http://prometheus:9090/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    program = f"import urllib.request as u; print(u.urlopen({url!r}).read().decode())"
    return json.loads(stack.engine.docker("exec", server, "python", "-c", program))["data"]


def value_of(stack: Stack, query: str) -> float:
    """The only value of a query; 0 if there is none."""
    found = ask(stack, "query", query=query)["result"]
    return float(found[0]["value"][1]) if found else 0.0


def test_profile_is_valid_and_every_port_is_of_this_machine_only(stack: Stack) -> None:
    assert {"prometheus", "grafana"} <= set(stack.compose(*PROFILE, "config", "--services").split())
    # Of the server two; of Prometheus and Grafana one each.
    assert stack.compose(*PROFILE, "config").count("127.0.0.1") == 4


def test_services_of_the_profile_are_not_started_without_it(stack: Stack) -> None:
    assert not stack.containers("grafana")


def test_page_of_the_server_is_not_published(stack: Stack) -> None:
    (server,) = stack.containers("server")
    published = stack.engine.inspect(server)["HostConfig"]["PortBindings"]
    assert published.keys() == {"50051/tcp", "8080/tcp"}


def test_prometheus_reads_every_server_and_computes_the_rules(
    stack: Stack, prometheus: str
) -> None:
    up = 'sum(up{job="convserve"})'
    until(lambda: value_of(stack, up) == 1, "the page of the only server is read")
    stack.compose("up", "-d", "--no-deps", "--scale", "server=2", "server")
    try:
        until(lambda: value_of(stack, up) == 2, "the pages of both servers are read")
        until(lambda: value_of(stack, "count(convserve_build_info)") == 2, "and stored")
        until(
            lambda: value_of(stack, "count(convserve:queue_work_seconds)") == 2,
            "the rules are computed",
        )
        groups = ask(stack, "rules")["groups"]
        assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}
    finally:
        stack.compose("up", "-d", "--no-deps", "--scale", "server=1", "server")


def test_container_of_prometheus_can_change_nothing_but_its_volume(
    stack: Stack, prometheus: str
) -> None:
    known = stack.engine.inspect(prometheus)
    (port,) = known["HostConfig"]["PortBindings"]["9090/tcp"]
    assert port["HostIp"] == "127.0.0.1"
    assert known["HostConfig"]["ReadonlyRootfs"]
    assert known["HostConfig"]["CapDrop"] == ["ALL"]
    assert {mount["Destination"] for mount in known["Mounts"] if mount["RW"]} == {"/prometheus"}
