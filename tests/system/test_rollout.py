"""Servers whose calls are answered by the label "stable", which moves in a file of the folder."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from convserve import Client, ModelNotFound
from convserve.main import main
from tests.bundles import digit_of, write_bundle
from tests.system.conftest import WAIT_S, ServerProcess, StartServer
from tests.system.label_callers import callers
from tests.system.test_supervision import until

FRONTS = pytest.mark.parametrize("front", ["grpcio", "native"])
FLAGS = ("--rollout", "label", "--scan-s", "0.1")
MOVES = 10


def label(models: Path, version: int, *servers: str) -> int:
    """Move "stable" in a folder; returns the exit status of the command."""
    fleet = ["--fleet", ",".join(servers), "--wait", str(WAIT_S)] if servers else ["--force"]
    return main(["label", "set", "mnist", "stable", str(version), "--models", str(models), *fleet])


@pytest.mark.timeout(600)
@FRONTS
def test_label_that_moves_forth_and_back_under_load_fails_no_call(
    start_server: StartServer, models: Path, front: str
) -> None:
    assert label(models, 1) == 0
    server = start_server("--front", front, "--workers", "2", *FLAGS)
    address = server.wait_until_serving()
    with callers([address], 1) as seen:
        write_bundle(models, version=2)
        for turn in range(MOVES):
            version = 2 - turn % 2
            seen.move(version, lambda version: label(models, version, address))
    assert seen.failed == []
    assert seen.wrong == []
    assert seen.versions == {1, 2}
    assert server.terminate() == 0


@FRONTS
def test_labels_that_travel_need_no_restart_and_survive_the_death_of_a_worker(
    start_server: StartServer, models: Path, front: str
) -> None:
    write_bundle(models, version=2)
    assert label(models, 1) == 0
    server = start_server("--front", front, "--workers", "1", *FLAGS)
    address = server.wait_until_serving()
    assert label(models, 2, address) == 0
    (worker,) = server.worker_pids()

    os.kill(worker, signal.SIGKILL)
    with Client(address, timeout=WAIT_S, wait_for_ready=True) as client:
        assert client.classify(digit_of(3)).version == 2
    assert server.terminate() == 0


class Fleet:
    """Two servers, each with a folder of its own, as with a cache of its own."""

    def __init__(self, folder: Path) -> None:
        self.folders = [folder / "a", folder / "b"]
        self.servers: list[ServerProcess] = []
        for one in self.folders:
            write_bundle(one)
            label(one, 1)
        self.servers = [ServerProcess(one, *FLAGS, "--workers", "1") for one in self.folders]
        self.addresses = [one.wait_until_serving() for one in self.servers]

    def stop(self) -> None:
        for server in self.servers:
            if server.process.poll() is None:
                server.process.kill()
            server.wait()

    def version(self, number: int, asked: int | None = None) -> int:
        """What answers a call to a server."""
        with Client(self.addresses[number], timeout=WAIT_S) as client:
            return client.classify(digit_of(3), model="mnist", version=asked).version


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    servers = Fleet(tmp_path)
    yield servers
    servers.stop()


def test_while_a_label_travels_replies_name_their_version_and_a_pinned_one_is_had_or_not_found(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = fleet.folders
    write_bundle(a, version=2)
    assert label(a, 2, fleet.addresses[0]) == 0
    assert [fleet.version(0), fleet.version(1)] == [2, 1]
    assert [fleet.version(0, 1), fleet.version(1, 1)] == [1, 1]
    assert fleet.version(0, 2) == 2
    with pytest.raises(ModelNotFound, match="model mnist has no version 2; loaded: 1"):
        fleet.version(1, 2)
    names = ",".join(fleet.addresses)
    capsys.readouterr()
    assert main(["models", "--fleet", names, "--format", "jsonl"]) == 3
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {(row["version"], row["replica"]): row["state"] for row in rows if row["differs"]} == {
        (2, fleet.addresses[0]): "served",
        (2, fleet.addresses[1]): "absent",
        (1, fleet.addresses[0]): "served",
        (1, fleet.addresses[1]): "served",
    }
    # The other one has the label first, and the version later.
    assert label_of_what_comes(b, 2) == 0
    fleet.servers[1].wait_for("label stable of mnist waits for version 2, which is not in the mod")
    assert fleet.version(1) == 1
    shutil.copytree(a / "mnist/2", b / "mnist/.2.tmp")
    (b / "mnist/.2.tmp").rename(b / "mnist/2")
    fleet.servers[1].wait_for("label stable of mnist names version 2")
    assert [fleet.version(0), fleet.version(1)] == [2, 2]
    assert main(["models", "--fleet", names]) == 0


def label_of_what_comes(models: Path, version: int) -> int:
    """As a copy of a file of labels comes, before the versions that it names."""
    content = json.loads((models / "mnist/labels.json").read_bytes())
    content |= {"labels": {"stable": version}, "previous": content["labels"]}
    temporary = models / "mnist/.labels.tmp"
    temporary.write_text(json.dumps(content))
    temporary.rename(models / "mnist/labels.json")
    return 0


def test_server_without_the_label_answers_not_found_and_pinned_calls(
    start_server: StartServer, models: Path
) -> None:
    server = start_server("--workers", "1", *FLAGS)
    address = server.wait_until_serving()
    with Client(address, timeout=WAIT_S) as client:
        with pytest.raises(ModelNotFound, match="no version with the label 'stable'; labels: none"):
            client.classify(digit_of(3), model="mnist")
        assert client.classify(digit_of(3), model="mnist", version=1).version == 1
        assert label(models, 1, address) == 0
        assert client.classify(digit_of(3), model="mnist").version == 1


def test_label_in_both_files_is_an_error_at_the_start_and_named_at_sighup(
    start_server: StartServer, models: Path, tmp_path: Path
) -> None:

    file = tmp_path / "settings.toml"
    file.write_text('[models.mnist]\nrollout = "label"\nlabels = {stable = 1}\n')
    refused = start_server("--config", str(file))
    assert refused.wait() == 2
    assert label(models, 1) == 0
    file.write_text('[models.mnist]\nrollout = "label"\n')
    server = start_server("--config", str(file), "--workers", "1")
    address = server.wait_until_serving()
    file.write_text('[models.mnist]\nrollout = "label"\nlabels = {stable = 1}\n')
    server.process.send_signal(signal.SIGHUP)
    named = server.wait_for("SIGHUP: the settings stay as they are")["message"]
    assert "models.mnist.labels: expected none, since rollout is label" in named
    file.write_text("")
    server.process.send_signal(signal.SIGHUP)
    assert "changed: models.mnist.rollout" in server.wait_for("SIGHUP")["message"]
    with Client(address, timeout=WAIT_S) as client:
        until(lambda: not client.models()[0].version_labels, "labels that do not count")
    assert server.terminate() == 0
