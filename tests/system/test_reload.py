"""SIGHUP: the settings are read again; what needs it restarts the workers, one by one."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from convserve import Client, ConvserveError
from tests.bundles import digit_of, write_bundle
from tests.system.conftest import WAIT_S, ServerProcess, StartServer
from tests.system.test_supervision import calls, listed, until

FRONTS = pytest.mark.parametrize("front", ["grpcio", "native"])
CLIENTS, THREADS = 4, 2
PAUSE_S = 0.005


class Configured:
    """A server with a settings file that a test writes anew.

    Args:
        start: starts it.
        file: of its settings.
        content: of the file.
        flags: beside it.
    """

    def __init__(self, start: StartServer, file: Path, content: str, *flags: str) -> None:
        self._file = file
        self._file.write_text(content)
        self.server: ServerProcess = start("--config", str(file), *flags)
        self.address = self.server.wait_until_serving()

    def reload(self, content: str) -> str:
        """Write the file, and have the server read it; returns what it says."""
        self._file.write_text(content)
        self.server.process.send_signal(signal.SIGHUP)
        message: str = self.server.wait_for("SIGHUP: the settings")["message"]
        return message


@contextmanager
def load(address: str) -> Iterator[Any]:
    """Calls by clients that try again what the server asks them to; none fails."""
    stop = threading.Event()
    faults: list[str] = []
    answered = [0] * (CLIENTS * THREADS)

    def run(client: Client, number: int) -> None:
        while not stop.is_set():
            try:
                result = client.classify(digit_of(number), timeout=WAIT_S)
            except ConvserveError as error:
                faults.append(repr(error))
                return
            if result.label != str(number):
                faults.append(f"{result.label} for {number}")
            answered[number] += 1
            # Workers that start need the processors, too.
            stop.wait(PAUSE_S)

    clients = [Client(address) for _ in range(CLIENTS)]
    threads = [
        threading.Thread(target=run, args=(clients[number % CLIENTS], number))
        for number in range(CLIENTS * THREADS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield lambda: sum(answered)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        for client in clients:
            client.close()
    assert faults == []


@FRONTS
def test_setting_of_the_workers_restarts_them_one_by_one_without_a_failed_call(
    start_server: StartServer, tmp_path: Path, front: str
) -> None:
    one = Configured(
        start_server, tmp_path / "c.toml", "max_queue = 100\n", "--front", front, "--workers", "2"
    )
    before = set(one.server.worker_pids())
    with load(one.address) as answered:
        says = one.reload("max_queue = 77\n")
        assert says.endswith("changed by restarting the workers, one by one: max_queue")
        for _ in range(2):
            one.server.wait_for("a queue of up to 77 images")
            # Of two processes, so in whatever order.
            one.server.wait_for_each("is replaced", "stopped, ")
        until(lambda: len(one.server.worker_pids()) == 2, "workers")
        assert not before & set(one.server.worker_pids())
        count = answered()
        until(lambda: answered() > count + 200, "calls")
    assert not any(entry["level"] in ("error", "warning") for entry in one.server.log)
    assert one.server.terminate() == 0


def test_policies_change_at_once(start_server: StartServer, models: Path, tmp_path: Path) -> None:
    write_bundle(models, version=2)
    one = Configured(start_server, tmp_path / "c.toml", "", "--workers", "2", "--scan-s", "0.1")
    pids = one.server.worker_pids()
    assert listed(one.address) == [2]
    says = one.reload("[models.mnist]\nversions = 2\nlabels = {stable = 1}\n")
    assert says.endswith("changed: models.mnist.labels, models.mnist.versions")
    until(lambda: listed(one.address) == [2, 1], "both versions")
    one.reload("[models.mnist]\nversions = [1]\n")
    until(lambda: listed(one.address) == [1], "version 1")
    assert one.server.worker_pids() == pids
    assert one.server.terminate() == 0


def test_log_level_changes_at_once_in_all_processes(
    start_server: StartServer, models: Path, tmp_path: Path
) -> None:
    one = Configured(start_server, tmp_path / "c.toml", "", "--workers", "1", "--scan-s", "0.1")
    assert one.reload('log_level = "debug"\n').endswith("changed: log_level")
    write_bundle(models, version=2)
    one.server.wait_for("loads mnist/2")
    one.reload('log_level = "error"\n')
    write_bundle(models, version=3)
    until(lambda: listed(one.address) == [3], "version 3")
    assert one.server.terminate() == 0
    assert not any("mnist/3" in entry["message"] for entry in one.server.log)


def test_file_that_is_not_valid_changes_nothing_and_is_named(
    start_server: StartServer, tmp_path: Path
) -> None:
    file = tmp_path / "c.toml"
    one = Configured(start_server, file, "max_queue = 100\n", "--workers", "1")
    pids = one.server.worker_pids()
    for content, message in (
        ("max_queue = 0\n", "max_queue: expected a whole number from 1 to 1000000, got 0"),
        ("max_que = 7\n", "max_que: unknown setting"),
        ("this is not TOML", "is not TOML"),
    ):
        says = one.reload(content)
        assert says.startswith("SIGHUP: the settings stay as they are: ")
        assert str(file) in says
        assert message in says
    assert listed(one.address) == [1]
    assert one.server.worker_pids() == pids
    assert one.reload("max_queue = 100\n").endswith("nothing has changed")
    assert one.server.terminate() == 0


def test_what_only_a_start_can_change_is_named(start_server: StartServer, tmp_path: Path) -> None:
    one = Configured(start_server, tmp_path / "c.toml", "", "--workers", "1")
    says = one.reload('host = "0.0.0.0"\nscan_s = 0.5\n')
    assert says.endswith("changed: scan_s; unchanged until the server is started again: host")
    assert listed(one.address) == [1]
    assert one.server.terminate() == 0


def test_setting_with_which_no_worker_starts_leaves_those_that_serve(
    start_server: StartServer, tmp_path: Path
) -> None:
    one = Configured(start_server, tmp_path / "c.toml", "", "--workers", "2")
    pids = one.server.worker_pids()
    with calls(one.address):
        one.reload('device = "cuda"\n')
        message = one.server.wait_for("restarting the workers is given up")["message"]
        assert "device cuda" in message
        assert set(pids) <= set(one.server.worker_pids())
        # One that starts again does so by the settings before.
        os.kill(pids[0], signal.SIGKILL)
        one.server.wait_for("serving with")
    assert one.server.terminate() == 0


def test_worker_that_dies_while_its_successor_starts_is_not_missed(
    start_server: StartServer, tmp_path: Path
) -> None:
    one = Configured(start_server, tmp_path / "c.toml", "", "--workers", "2")
    first, second = one.server.worker_pids()
    with load(one.address):
        one.reload("max_queue = 77\n")
        os.kill(first, signal.SIGKILL)
        for _ in range(2):
            one.server.wait_for("a queue of up to 77 images")
        one.server.wait_for("stopped, ")
        until(lambda: len(one.server.worker_pids()) == 2, "workers")
    assert not {first, second} & set(one.server.worker_pids())
    assert one.server.terminate() == 0
