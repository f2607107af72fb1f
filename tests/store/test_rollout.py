"""Several servers follow a label on a stand-in for S3, under load."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from google.protobuf import json_format

from convserve import Client
from convserve.main import main
from convserve_bundle.contract import MANIFEST_KEY
from convserve_store.bundles import BundleStore
from tests.bundles import digit_of, manifest, model
from tests.store.stand_in import StandIn
from tests.system.conftest import WAIT_S, ServerProcess
from tests.system.label_callers import callers

DIGITS = model({MANIFEST_KEY: json_format.MessageToJson(manifest())}).SerializeToString()
FLAGS = ("--rollout", "label", "--poll-s", "1", "--scan-s", "0.1", "--workers", "2")
SERVERS, MOVES = 2, 10


@pytest.fixture
def servers(store: BundleStore, url: str) -> Iterator[list[str]]:
    """Addresses of servers of a store with mnist/1, which is stable."""
    store.publish(DIGITS, "mnist", 1)
    assert label(url, 1) == 0
    started = [ServerProcess(url, *FLAGS) for _ in range(SERVERS)]
    try:
        yield [one.wait_until_serving() for one in started]
        assert [one.terminate() for one in started] == [0] * SERVERS
    finally:
        for one in started:
            if one.process.poll() is None:
                one.process.kill()
            one.wait()


def label(url: str, version: int, *servers: str) -> int:
    """Move "stable" in the store; returns the exit status of the command."""
    fleet = ["--fleet", ",".join(servers), "--wait", str(WAIT_S)] if servers else ["--force"]
    return main(["label", "set", "mnist", "stable", str(version), "--models", url, *fleet])


@pytest.mark.timeout(600)
def test_label_that_moves_forth_and_back_under_load_fails_no_call_of_any_server(
    store: BundleStore, url: str, servers: list[str]
) -> None:
    def move(version: int) -> None:
        assert label(url, version, *servers) == 0

    with callers(servers, 1) as seen:
        store.publish(DIGITS, "mnist", 2)
        for turn in range(MOVES):
            seen.move(2 - turn % 2, move)
    assert seen.failed == []
    assert seen.wrong == []
    assert seen.versions == {1, 2}
    assert main(["models", "--fleet", ",".join(servers)]) == 0


def test_older_version_that_no_server_has_is_had_again_under_a_label_of_its_own(
    store: BundleStore, url: str, servers: list[str]
) -> None:
    for version in (2, 3, 4):
        store.publish(DIGITS, "mnist", version)
        assert label(url, version, *servers) == 0
    models = ["--models", url]
    fleet = ["--fleet", ",".join(servers), "--wait", "0"]
    assert main(["label", "set", "mnist", "stable", "1", *models, *fleet]) == 1
    assert main(["label", "set", "mnist", "old", "1", *models, "--force"]) == 0
    assert label(url, 1, *servers) == 0


def test_server_that_starts_while_the_store_is_away_has_the_labels_of_its_copies(
    store: BundleStore, stand_in: StandIn, url: str, tmp_path: Path
) -> None:
    for version in (1, 2):
        store.publish(DIGITS, "mnist", version)
    assert label(url, 1) == 0
    flags = [*FLAGS, "--models-cache", str(tmp_path / "copies")]

    def serves(server: ServerProcess) -> int:
        with Client(server.wait_until_serving(), timeout=WAIT_S) as client:
            return client.classify(digit_of(3)).version

    with started(url, *flags) as server:
        assert serves(server) == 1
        assert server.terminate() == 0
    with stand_in.away(), started(url, *flags) as server:
        assert serves(server) == 1
        assert server.terminate() == 0


@contextmanager
def started(url: str, *flags: str) -> Iterator[ServerProcess]:
    server = ServerProcess(url, *flags)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.wait()
