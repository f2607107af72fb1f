"""What the page of metrics shows of a supervisor, and the port that it is on."""

import contextlib
import http.client
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from benchmarks.harness.ports import free_port
from convserve_server.host import shared_memory
from convserve_server.host.port import StartError
from convserve_server.process import server_view
from convserve_server.process.metrics_port import metrics_port
from convserve_server.process.server_view import ServerView, statistics_slot
from convserve_server.process.slot import ADMIN_HOST, GUARD, Slot
from convserve_server.settings.settings import Settings, make_settings
from convserve_server.telemetry.server_state import ModelState, ServerState
from convserve_server.telemetry.shared_statistics import SharedStatistics, statistics_bytes

WAIT_S = 60.0
MODELS = [ModelState("mnist", 3, "served", 1.0, None)]


class Child:
    """As much of a process as is looked at."""

    def __init__(self, pid: int) -> None:
        self.pid = pid


def slot(number: int, pid: int = 0, **fields: Any) -> Slot:
    process = cast(Any, Child(pid)) if pid else None
    return Slot(number, process=process, **fields)


class Supervisor:
    """Answers the page in a loop of its own, once it is started."""

    def __init__(self, *slots: Slot) -> None:
        self.slots = list(slots)
        self.memory = shared_memory.create("test", statistics_bytes(4))
        self.woken = threading.Event()
        totals = SharedStatistics(shared_memory.shared(self.memory)).totals
        self.view = ServerView(self.slots, totals, lambda: (MODELS, "CPU"), self.woken.set)
        self._stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop = True
        self.woken.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop:
            self.woken.wait(WAIT_S)
            self.woken.clear()
            self.view.answer()


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    made = Supervisor(
        slot(1, 11, ready=True),
        slot(2, 12),
        slot(3),
        # It is being replaced: its successor serves already.
        slot(4, 13, ready=True, leaving=True),
        slot(4, 14, ready=True, bank=1),
        slot(0, 15, module=ADMIN_HOST, ready=True),
        slot(1, 16, module=GUARD, ready=True),
    )
    yield made
    made.close()


def test_state_is_made_when_it_is_asked_for(supervisor: Supervisor) -> None:
    supervisor.view.answer()
    supervisor.start()
    assert supervisor.view.state() == ServerState(
        serving=2,
        starting=2,
        restarts={1: 0, 2: 0, 3: 0, 4: 0},
        processes={
            "supervisor": [os.getpid()],
            "worker-1": [11],
            "worker-2": [12],
            "worker-4": [13, 14],
            "administration": [15],
            "guard-1": [16],
        },
        models=MODELS,
        provider="CPU",
    )
    supervisor.slots[0].ready = False
    assert supervisor.view.state().serving == 1


def test_page_has_what_was_before_if_the_supervisor_is_busy(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_view, "_PATIENCE_S", 0.05)
    assert supervisor.view.state() == ServerState()
    assert supervisor.woken.is_set()
    supervisor.view.answer()
    before = supervisor.view.state()
    assert before.serving == 2


def test_ends_that_nobody_asked_for_are_counted_and_gauges_of_who_ended_forgotten(
    supervisor: Supervisor,
) -> None:
    view, first, successor = supervisor.view, supervisor.slots[0], supervisor.slots[4]
    for one in (first, successor):
        counts = SharedStatistics(shared_memory.shared(supervisor.memory), statistics_slot(one, 0))
        counts.batch("mnist/3", 1, 0.1, [1.0], 1.0, 2.0)
        counts.set_now(2, [("mnist/3", 5, 0.5)])
    assert view.totals.in_flight() == 4
    view.on_exit(first, asked=False)
    view.on_exit(supervisor.slots[5], asked=False)
    assert view.totals.in_flight() == 2
    view.on_exit(successor, asked=True)
    assert view.totals.in_flight() == 0
    (version,) = view.totals.versions().values()
    assert (version.waiting, version.waiting_s, version.images) == (0, 0.0, 2)
    supervisor.start()
    assert view.state().restarts == {1: 1, 2: 0, 3: 0, 4: 0}


def settings_with(tmp_path: Path, **telemetry: object) -> Settings:
    return make_settings(models=str(tmp_path), **telemetry)  # type: ignore[arg-type]


def status_of(port: int, key: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {key}"})
        return connection.getresponse().status


def test_port_follows_its_key_file(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start()
    key = tmp_path / "key"
    key.write_text("first\n")
    port = free_port()
    settings = settings_with(tmp_path, metrics_port=port, metrics_key_file=str(key))
    with metrics_port(settings, supervisor.view):
        assert (status_of(port, "first"), status_of(port, "second")) == (200, 401)
        key.write_text("second\n")
        end = time.monotonic() + WAIT_S
        while status_of(port, "second") != 200 and time.monotonic() < end:
            time.sleep(0.05)
        assert (status_of(port, "first"), status_of(port, "second")) == (401, 200)
        # What cannot be used changes nothing.
        key.write_text("")
        assert status_of(port, "second") == 200
    with pytest.raises(ConnectionRefusedError):
        status_of(port, "second")


def test_port_that_cannot_be_had_is_an_error_that_says_what_to_do(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        settings = settings_with(tmp_path, metrics_port=other.getsockname()[1])
        with (
            pytest.raises(StartError, match="in use; choose another with .*--metrics-port"),
            metrics_port(settings, supervisor.view),
        ):
            pass


def test_files_that_are_not_what_they_should_be_are_named(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    port = free_port()
    none = str(tmp_path / "none")
    for files, problem in (
        ({"metrics_key_file": none}, "metrics_key_file: .*No such file"),
        ({"tls_cert": none, "tls_key": none}, "tls_cert: .*No such file"),
    ):
        settings = settings_with(tmp_path, metrics_port=port, **files)
        with pytest.raises(StartError, match=problem), metrics_port(settings, supervisor.view):
            pass
    # It was closed again.
    socket.create_server(("127.0.0.1", port)).close()


def test_no_port_is_open_by_default(supervisor: Supervisor, tmp_path: Path) -> None:
    threads = threading.active_count()
    with metrics_port(settings_with(tmp_path), supervisor.view):
        assert threading.active_count() == threads
