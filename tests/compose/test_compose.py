"""docker-compose.yml: the two jobs, the server between them, and what befalls it. In this order."""

import re
from collections.abc import Callable
from functools import partial

import pytest

from benchmarks.containers.engine import MAKE_S, until
from benchmarks.containers.stack import OutageClient, Stack

# The first makes the images, and the stack's job trains.
pytestmark = [pytest.mark.compose, pytest.mark.timeout(1.5 * MAKE_S)]

Ask = Callable[..., OutageClient]

#: A training of seconds, which publishes whatever comes out.
SHORT = ("fit", "digits", "--limit", "1000", "--epochs", "1", "--min-accuracy", "0")


def right(text: str, who: str) -> tuple[int, int]:
    """How many answers were right, and of how many, by a line that begins with who."""
    (found,) = re.findall(rf"^{who}.*?([\d,]+) of ([\d,]+)", text, re.MULTILINE)
    return int(found[0].replace(",", "")), int(found[1].replace(",", ""))


def calls_answered(stack: Stack, container: str) -> int:
    """Calls that a stopped server has answered, by its log; none may have been aborted."""
    stopped = [entry for entry in stack.entries(container) if "calls" in entry]
    assert stopped
    assert all(entry["aborted"] == 0 for entry in stopped)
    return sum(int(entry["calls"]) for entry in stopped)


def test_jobs_train_and_ask_and_the_server_is_as_often_right_as_keras(stack: Stack) -> None:
    (trainer,), (client,) = stack.containers("trainer"), stack.containers("client")
    assert stack.engine.status(trainer) == 0, stack.engine.log(trainer)
    assert stack.engine.status(client) == 0, stack.engine.log(client)
    correct, asked = right(stack.engine.log(client), "right answers")
    assert (correct, asked) == right(stack.engine.log(trainer), "held-out digits, Keras")
    assert asked == 10_000


def test_server_becomes_healthy_and_logs_json(stack: Stack) -> None:
    (server,) = stack.containers("server")
    until(
        lambda: stack.engine.inspect(server)["State"]["Health"]["Status"] == "healthy",
        "the server is healthy",
    )
    assert any("mnist/1 is served" in entry["message"] for entry in stack.entries(server))


def test_server_has_a_page_for_browsers_of_this_machine(stack: Stack) -> None:
    (server,) = stack.containers("server")
    program = "import urllib.request as u; print(u.urlopen('http://localhost:8080/').read())"
    page = stack.engine.docker("exec", server, "python", "-c", program)
    assert "<!doctype html>" in page.lower()
    assert stack.compose("port", "server", "8080").startswith("127.0.0.1:80")


def test_job_that_is_started_again_trains_nothing(stack: Stack) -> None:
    printed = stack.compose("run", "--rm", "client")
    assert right(printed, "right answers")[1] == 10_000
    (trainer,) = stack.containers("trainer")
    assert stack.engine.status(trainer) == 0
    assert "/models/mnist/1" in stack.engine.log(trainer).splitlines()[-1]


@pytest.mark.parametrize("service", ["trainer", "server", "client"])
def test_container_can_change_nothing_but_its_volumes(stack: Stack, service: str) -> None:
    (container,) = stack.containers(service)
    known = stack.engine.inspect(container)
    assert known["Config"]["User"] == "10001:10001"
    assert known["HostConfig"]["ReadonlyRootfs"]
    assert known["HostConfig"]["CapDrop"] == ["ALL"]
    writable = {mount["Destination"] for mount in known["Mounts"] if mount["RW"]}
    assert writable == ({"/models", "/cache"} if service == "trainer" else set())


@pytest.mark.parametrize("image", ["convserve-server", "convserve-client", "convserve-trainer"])
def test_image_holds_no_more_than_its_packages(stack: Stack, image: str) -> None:
    look = (
        "find /venv /root /tmp /cache /models -name pip -o -name '*.whl' -o -path '*/.cache/*';"
        "command -v cc gcc; exit 0"
    )
    options = ["--user", "0", "--entrypoint", "sh"]
    status, found = stack.engine.run_alone(image, "-c", look, options=options)
    assert (status, found) == (0, "")


def test_second_training_is_taken_up_under_load_without_a_failed_call(
    stack: Stack, ask: Ask
) -> None:
    (server,) = stack.containers("server")
    client = ask()
    stack.compose("run", "--rm", "--no-deps", "trainer", *SHORT)
    until(
        lambda: any("mnist/1 is unloaded" in e["message"] for e in stack.entries(server)),
        "version 2 has taken over",
    )
    written = stack.engine.docker("exec", server, "stat", "-c", "%.Y", "/models/mnist/2/model.onnx")
    done = client.stop()
    print(done)
    print(f"version 2 answered {done['first_s']['2'] - float(written):.2f} s after it was written")
    assert set(done["versions"]) == {"1", "2"}
    assert not done["failed"]
    assert stack.engine.inspect(server)["RestartCount"] == 0


def test_killed_server_that_is_started_again_costs_no_call(stack: Stack, ask: Ask) -> None:
    client = ask("--threads", "4")
    stack.compose("kill", "server")
    (server,) = stack.containers("server")
    assert stack.engine.status(server) == 137
    stack.compose("up", "-d", "--no-deps", "server")
    again = ask()
    done = client.stop()
    print(done)
    assert not done["failed"]
    assert not again.stop()["failed"]


def test_stopped_server_ends_every_call_and_exits_with_0(stack: Stack, ask: Ask) -> None:
    client = ask("--threads", "4")
    stack.compose("stop", "server")
    (server,) = stack.containers("server")
    assert stack.engine.status(server) == 0
    assert calls_answered(stack, server) > 0
    stack.compose("up", "-d", "--no-deps", "server")
    again = ask()
    done = client.stop()
    print(done)
    assert not done["failed"]
    assert not again.stop()["failed"]


def test_calls_of_one_client_spread_evenly_over_three_servers_and_one_may_die(
    stack: Stack, ask: Ask
) -> None:
    stack.compose("rm", "-sf", "server")
    stack.compose("up", "-d", "--no-deps", "--scale", "server=3", "server")
    servers = stack.containers("server")
    assert len(servers) == 3
    for server in servers:
        until(partial(stack.serves, server, "mnist/2"), "each server has the model")
    first = ask("--threads", "4", "--report-after", "3000").stop()
    stack.compose("stop", "server")
    counts = [calls_answered(stack, server) for server in servers]
    print(first, counts)
    assert not first["failed"]
    mean = sum(counts) / 3
    assert all(abs(count - mean) <= 0.2 * mean for count in counts), counts

    stack.compose("up", "-d", "--no-deps", "--scale", "server=3", "server")
    client = ask("--threads", "4")
    stack.engine.docker("kill", servers[1])
    again = ask()
    done = client.stop()
    print(done)
    assert not done["failed"]
    assert not again.stop()["failed"]
    stack.compose("up", "-d", "--no-deps", "--scale", "server=1", "server")
