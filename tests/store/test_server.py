"""A real server with its models on a stand-in for S3."""

import os
import signal
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from google.protobuf import json_format

from benchmarks.harness.ports import free_port
from convserve import Client
from convserve_bundle.contract import MANIFEST_KEY, MODEL_FILE
from convserve_bundle.signing import Signer
from convserve_store.bundles import BundleStore
from tests.bundles import digit_of, manifest, model
from tests.signing_keys import new_key
from tests.store.stand_in import StandIn
from tests.system.conftest import WAIT_S, ServerProcess
from tests.system.test_supervision import until
from tests.system.test_versions import watch

StartServer = Callable[..., ServerProcess]

DIGIT = 3
DIGITS = model({MANIFEST_KEY: json_format.MessageToJson(manifest())}).SerializeToString()
FLAGS = ("--poll-s", "1", "--scan-s", "0.1", "--workers", "2")


@pytest.fixture
def start_server(stand_in: StandIn, url: str) -> Iterator[StartServer]:
    """Start servers over the store; any that is left at the end is killed."""
    servers: list[ServerProcess] = []

    def start(*flags: str, models: str = url) -> ServerProcess:
        servers.append(ServerProcess(models, *FLAGS, *flags))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
        server.wait()


def served(client: Client) -> list[str]:
    return sorted(f"{one.name}/{one.version}" for one in client.models())


def errors(server: ServerProcess) -> list[str]:
    return [one["message"] for one in server.log if one["level"] in ("error", "warning")]


def copier(server: ServerProcess) -> int:
    """The process that copies models."""
    for pid in server.worker_pids():
        if b"mirror_host" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise AssertionError("no process copies models")


def test_server_follows_what_is_published_and_removed_without_a_failed_call(
    store: BundleStore, start_server: StartServer
) -> None:
    store.publish(DIGITS, "mnist", 1)
    server = start_server()
    address = server.wait_until_serving()
    with Client(address) as client, watch(address) as seen:
        assert client.classify(digit_of(DIGIT)).label == str(DIGIT)
        for version in (2, 3):
            store.publish(DIGITS, "mnist", version)
            until(lambda version=version: seen.newest == version, f"version {version}")  # type: ignore[misc]
        store.publish(DIGITS, "other")
        until(lambda: served(client) == ["mnist/3", "other/1"], "another model")
        folder = store.where.child("other")
        folder.filesystem.rm(folder.path, recursive=True)
        until(lambda: served(client) == ["mnist/3"], "one model fewer")
    assert seen.older == []
    assert seen.failed == []
    assert errors(server) == []
    assert server.terminate() == 0


def test_version_that_is_removed_is_replaced_by_the_one_before_without_a_failed_call(
    store: BundleStore, start_server: StartServer
) -> None:
    store.publish(DIGITS, "mnist", 1)
    store.publish(DIGITS, "mnist", 2)
    server = start_server()
    address = server.wait_until_serving()
    with Client(address) as client, watch(address) as seen:
        until(lambda: seen.answered > 100, "calls")
        folder = store.where.child("mnist", "2")
        folder.filesystem.rm(folder.path, recursive=True)
        until(lambda: served(client) == ["mnist/1"], "the version before")
    assert seen.failed == []
    assert server.terminate() == 0


def test_server_is_not_ready_before_all_is_copied(
    store: BundleStore, start_server: StartServer, stand_in: StandIn
) -> None:
    store.publish(DIGITS, "mnist", 1)
    store.publish(DIGITS, "other", 1)
    asked, go = threading.Event(), threading.Event()

    def hold(request: str) -> None:
        if request.startswith("GET") and "/other/" in request and request.endswith(MODEL_FILE):
            asked.set()
            go.wait(WAIT_S)

    stand_in.holds = hold
    port = free_port()
    server = start_server("--port", str(port))
    assert asked.wait(WAIT_S)
    try:
        # mnist/1 is there already.
        until(lambda: any("mnist/1: copied" in one["message"] for one in server.log), "the first")
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            pass
    finally:
        go.set()
    with Client(server.wait_until_serving()) as client:
        assert served(client) == ["mnist/1", "other/1"]
    assert server.terminate() == 0


def test_store_that_goes_away_and_comes_back_is_named_once_each(
    store: BundleStore, start_server: StartServer, stand_in: StandIn
) -> None:
    store.publish(DIGITS, "mnist", 1)
    port = free_port()
    server = start_server("--metrics-port", str(port))
    address = server.wait_until_serving()

    def metric(name: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=WAIT_S) as page:
            lines = page.read().decode().splitlines()
        return float(next(one for one in lines if one.startswith(f"{name} ")).split()[1])

    assert metric("convserve_store_up") == 1
    with watch(address) as seen:
        with stand_in.away():
            until(lambda: metric("convserve_store_up") == 0, "that it is away")
            answered = metric("convserve_store_answered_timestamp_seconds")
            before = seen.answered
            until(lambda: seen.answered > before + 100, "calls")
        until(lambda: metric("convserve_store_up") == 1, "that it is back")
        assert metric("convserve_store_answered_timestamp_seconds") > answered
        store.publish(DIGITS, "mnist", 2)
        until(lambda: seen.newest == 2, "the next version")
        # It answers, and refuses: two requests a question.
        stand_in.requests.clear()
        stand_in.fails = lambda request: True
        until(lambda: len(stand_in.requests) >= 7, "four questions")
        stand_in.behave()
        until(lambda: metric("convserve_store_up") == 1, "that it is back")
    assert seen.failed == []
    assert len(errors(server)) == 2
    for problem in errors(server):
        assert problem.startswith("models: expected a store that answers at s3://convserve-test/mo")
        assert problem.endswith("the copies of before are served; trying again until it answers")
    assert sum("the store answers again" in one["message"] for one in server.log) == 2
    assert server.terminate() == 0


def test_server_starts_from_the_copies_of_the_last_one_while_the_store_is_away(
    store: BundleStore, start_server: StartServer, stand_in: StandIn, tmp_path: Path
) -> None:
    store.publish(DIGITS, "mnist", 1)
    cache = ("--models-cache", str(tmp_path / "cache"))
    first = start_server(*cache)
    first.wait_until_serving()
    assert first.terminate() == 0
    with stand_in.away():
        server = start_server(*cache)
        with Client(server.wait_until_serving()) as client:
            assert client.classify(digit_of(DIGIT)).label == str(DIGIT)
    assert server.terminate() == 0
    # Another one may not share them.
    one = start_server(*cache)
    one.wait_until_serving()
    other = start_server(*cache)
    assert other.wait() == 1
    assert one.terminate() == 0


def test_copier_that_is_killed_is_started_again_and_nothing_is_lost(
    store: BundleStore, start_server: StartServer
) -> None:
    store.publish(DIGITS, "mnist", 1)
    server = start_server()
    address = server.wait_until_serving()
    with watch(address) as seen:
        killed = copier(server)
        os.kill(killed, signal.SIGKILL)
        store.publish(DIGITS, "mnist", 2)
        until(lambda: seen.newest == 2, "the next version")
        assert copier(server) != killed
    assert seen.failed == []
    assert server.terminate() == 0


def test_settings_that_are_read_again_change_what_is_copied(
    store: BundleStore, start_server: StartServer, tmp_path: Path
) -> None:
    for version in (1, 2, 3):
        store.publish(DIGITS, "mnist", version)
    file = tmp_path / "settings.toml"
    file.write_text("[models]\nversions = 1\n")
    server = start_server("--config", str(file))
    with Client(server.wait_until_serving()) as client:
        assert served(client) == ["mnist/3"]
        file.write_text("[models]\nversions = [1, 3]\n")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: served(client) == ["mnist/1", "mnist/3"], "both versions")
    hup = next(one["message"] for one in server.log if one["message"].startswith("SIGHUP"))
    assert hup == "SIGHUP: the settings were read again; changed: versions"
    assert server.terminate() == 0


def test_bundles_from_a_store_must_be_signed_where_that_is_asked_for(
    store: BundleStore, start_server: StartServer, tmp_path: Path
) -> None:
    key, other = new_key(tmp_path / "ours"), new_key(tmp_path / "theirs")
    store.publish(DIGITS, "mnist", 1, Signer(key.private))
    store.publish(DIGITS, "mnist", 2, Signer(other.private))
    store.publish(DIGITS, "unsigned", 1)
    server = start_server("--require-signature", str(key.public))
    with Client(server.wait_until_serving()) as client:
        # The version before is copied for the one that is refused.
        until(lambda: served(client) == ["mnist/1"], "the one that is signed")
        refused = {f"{one.name}/{one.version}" for one in client.refused()}
        assert refused == {"mnist/2", "unsigned/1"}
    assert server.terminate() == 0


@pytest.mark.parametrize(
    ("models", "problem"),
    [
        (
            "s3://missing/models",
            "models: expected an existing bucket and object at s3://missing/models, got none: The "
            "specified bucket does not exist",
        ),
        ("http://host/models", "models: expected a URL of s3://, gs:// or az://, got one of http"),
    ],
)
@pytest.mark.usefixtures("store")
def test_store_that_cannot_be_used_ends_the_start(
    start_server: StartServer, models: str, problem: str, capfd: pytest.CaptureFixture[str]
) -> None:
    server = start_server(models=models)
    assert server.wait() in (1, 2)
    assert f"convserve-serve: {problem}" in capfd.readouterr().err


def test_store_that_does_not_answer_at_the_start_is_waited_for(
    store: BundleStore, start_server: StartServer, stand_in: StandIn
) -> None:
    store.publish(DIGITS, "mnist", 1)
    with stand_in.away():
        server = start_server()
        failed = server.wait_for("expected a store that answers")
        assert failed["message"].endswith("no model is served yet; trying again until it answers")
    with Client(server.wait_until_serving()) as client:
        assert served(client) == ["mnist/1"]
    assert server.terminate() == 0
