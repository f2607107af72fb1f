"""What an operator does to a server that runs, by the command and by the settings, under load."""

import io
import json
import os
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from convserve import Classification, Client, ConvserveError
from convserve.main import main
from tests.bundles import digit_of, write_bundle
from tests.system.conftest import WAIT_S, ServerProcess, StartServer
from tests.system.test_supervision import until

FRONTS = pytest.mark.parametrize("front", ["grpcio", "native"])
CALLERS = 8
PAUSE_S = 0.005
EXPLICIT = '[models.mnist]\ncontrol = "explicit"\n'


class Operated:
    """A server with an administration, and its operator.

    Args:
        start: starts it.
        folder: for its socket and its file of settings.
        content: of the file.
        flags: beside it.
    """

    def __init__(self, start: StartServer, folder: Path, content: str, *flags: str) -> None:
        self.socket = folder / "admin"
        self.file = folder / "settings.toml"
        self.file.write_text(content)
        self.server: ServerProcess = start(
            *("--config", str(self.file), "--admin-socket", str(self.socket)),
            *("--workers", "2", "--scan-s", "0.1", *flags),
        )
        self.address = self.server.wait_until_serving()

    def admin(self, words: str, status: int = 0) -> str:
        """Run `convserve admin`, in this process; returns what it says."""
        printed, errors = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
        command = ["admin", *words.split(), "--socket", str(self.socket), "--format", "json"]
        with redirect_stdout(printed), redirect_stderr(errors):
            ended = main(command)
        printed.seek(0)
        errors.seek(0)
        reported = errors.read()
        assert ended == status, reported
        return reported if status else printed.read()

    def versions(self) -> dict[int, Any]:
        """What is listed of mnist, by version."""
        return {one["version"]: one for one in json.loads(self.admin("list"))}

    def states(self) -> dict[int, str]:
        return {version: one["state"] for version, one in self.versions().items()}


class Callers:
    """Threads that call again and again, each with a client of its own."""

    def __init__(self, address: str, **asked: Any) -> None:
        self.faults: list[str] = []
        #: The versions that answered, in the order in which the first caller saw them.
        self.seen: list[int] = []
        self.answered = 0
        self._address = address
        self._asked = asked
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.threads = [
            threading.Thread(target=self._call, args=(number,)) for number in range(CALLERS)
        ]

    def _call(self, number: int) -> None:
        with Client(self._address, timeout=WAIT_S) as client:
            while not self._stop.is_set():
                try:
                    answer: Classification = client.classify(
                        digit_of(number), model="mnist", **self._asked
                    )
                except ConvserveError as error:
                    self.faults.append(repr(error))
                    return
                if answer.label != str(number):
                    self.faults.append(f"{answer.label} for {number}")
                with self._lock:
                    self.answered += 1
                    if number == 0 and self.seen[-1:] != [answer.version]:
                        self.seen.append(answer.version)
                # The operator's commands need the processors, too.
                self._stop.wait(PAUSE_S)

    def wait(self) -> None:
        """Waits for some more answers."""
        before = self.answered
        until(lambda: self.answered > before + 20 * CALLERS or self.faults, "calls")

    def stop(self) -> None:
        self._stop.set()
        for thread in self.threads:
            thread.join(WAIT_S)


@contextmanager
def calling(address: str, **asked: Any) -> Iterator[Callers]:
    callers = Callers(address, **asked)
    for thread in callers.threads:
        thread.start()
    try:
        yield callers
        callers.wait()
    finally:
        callers.stop()
    assert callers.faults == []


@FRONTS
def test_operator_loads_labels_and_unloads_without_a_failed_call(
    start_server: StartServer, models: Path, tmp_path: Path, front: str
) -> None:
    one = Operated(start_server, tmp_path, EXPLICIT, "--front", front)
    assert one.states() == {1: "found"}
    one.admin("load mnist")
    assert one.states() == {1: "served"}
    one.admin("label mnist stable --version 1")
    with calling(one.address) as newest, calling(one.address, label="stable") as stable:
        write_bundle(models, version=2)
        until(lambda: one.states() == {2: "found", 1: "served"}, "version 2")
        newest.wait()
        assert newest.seen == [1]
        one.admin("load mnist --version 2")
        # Every call that begins now is answered by it: all workers have changed.
        newest.wait()
        stable.wait()
        assert one.versions()[2]["default"]
        one.admin("label mnist stable --version 2")
        stable.wait()
        one.admin("unload mnist --version 1")
        newest.wait()
        stable.wait()
    assert newest.seen == [1, 2]
    assert stable.seen == [1, 2]
    assert one.states() == {2: "served", 1: "found"}
    assert one.server.terminate() == 0


def test_models_shows_labels_and_the_default_at_once_after_the_reply(
    start_server: StartServer, models: Path, tmp_path: Path
) -> None:
    write_bundle(models, version=2)
    one = Operated(start_server, tmp_path, "versions = 2\n[models.mnist]\nlabels = {stable = 1}\n")

    def seen() -> list[tuple[int, tuple[str, ...], bool]]:
        # Of whichever worker has the connection.
        with Client(one.address, timeout=WAIT_S) as client:
            return [(each.version, each.version_labels, each.default) for each in client.models()]

    assert [seen() for _ in range(4)] == [[(2, (), True), (1, ("stable",), False)]] * 4
    one.admin("label mnist stable --version 2")
    one.admin("label mnist old --version 1")
    assert [seen() for _ in range(4)] == [[(2, ("stable",), True), (1, ("old",), False)]] * 4
    one.admin("label mnist old --remove")
    assert [seen() for _ in range(4)] == [[(2, ("stable",), True), (1, (), False)]] * 4
    assert one.server.terminate() == 0


def test_labels_move_by_the_settings_under_load_and_only_onto_what_is_loaded(
    start_server: StartServer, models: Path, tmp_path: Path
) -> None:
    write_bundle(models, version=2)
    head = "versions = 2\n[models.mnist]\n"
    one = Operated(start_server, tmp_path, f"{head}labels = {{stable = 1}}\n")
    with calling(one.address, label="stable") as stable:
        stable.wait()
        for labels in ("{stable = 2, next = 3}", "{stable = 2, next = 2}"):
            one.file.write_text(f"{head}labels = {labels}\n")
            one.server.process.send_signal(signal.SIGHUP)
            assert "changed: models.mnist.labels" in one.server.wait_for("SIGHUP")["message"]
            stable.wait()
            if "3" in labels:
                one.server.wait_for("label next of mnist has no effect: version 3 is not served")
            found = [*one.versions()[2]["labels"]]
            assert found == (["stable"] if "3" in labels else ["next", "stable"])
    assert stable.seen == [1, 2]
    assert one.server.terminate() == 0


def test_what_cannot_be_done_says_why_and_changes_nothing(
    start_server: StartServer, models: Path, tmp_path: Path
) -> None:
    (models / "mnist" / "2").mkdir()
    (models / "mnist" / "2" / "model.onnx").write_bytes(b"garbage")
    one = Operated(start_server, tmp_path, EXPLICIT)
    one.admin("load mnist --version 1")
    for words, problem in (
        ("load mnist --version 7", "mnist/7 is not in the folder; there: 1, 2"),
        ("load mnist --version 2", "mnist/2 cannot be served: "),
        ("unload mnist --version 7", "mnist/7 is not served; there: 1"),
        ("label mnist stable --version 2", "that is served (1), got 2"),
        ("load cats", "models.cats.control: expected explicit, got poll"),
    ):
        reported = one.admin(words, status=1)
        assert problem in reported
        assert reported.count("\n") == 1
        assert one.states()[1] == "served"
    with Client(one.address, timeout=WAIT_S) as client:
        assert client.classify(digit_of(3)).version == 1
    assert one.server.terminate() == 0


def test_socket_is_the_owners_and_outlives_the_process_that_hears_on_it(
    start_server: StartServer, tmp_path: Path
) -> None:
    one = Operated(start_server, tmp_path, EXPLICIT)
    assert stat.S_IMODE(one.socket.stat().st_mode) == 0o600
    (host,) = [
        pid
        for pid in one.server.worker_pids()
        if b"admin_host" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    os.kill(host, signal.SIGKILL)
    one.server.wait_for("administration on the socket")
    one.admin("load mnist")
    assert one.states() == {1: "served"}
    assert one.server.terminate() == 0
    assert not one.socket.exists()


def test_server_does_not_start_on_the_socket_of_another_one(
    start_server: StartServer, tmp_path: Path
) -> None:
    one = Operated(start_server, tmp_path, EXPLICIT)
    second = start_server("--admin-socket", str(one.socket), "--workers", "1")
    assert second.wait() == 1
    assert one.states() == {1: "found"}
    assert one.server.terminate() == 0


def test_policy_of_another_server_is_named_once_and_ignored(
    start_server: StartServer, models: Path
) -> None:
    (models / "mnist" / "config.pbtxt").write_text('name: "mnist"\nmax_batch_size: 8\n')
    server = start_server("--workers", "1", "--scan-s", "0.1")
    server.wait_for("mnist/config.pbtxt is Triton's and is ignored")
    address = server.wait_until_serving()
    write_bundle(models, version=2)
    with Client(address, timeout=WAIT_S) as client:
        until(lambda: client.classify(digit_of(3)).version == 2, "version 2")
    assert server.terminate() == 0
    assert len([entry for entry in server.log if "config.pbtxt" in entry["message"]]) == 1


def test_idle_model_keeps_its_labels_and_answers_by_them(
    start_server: StartServer, models: Path, tmp_path: Path
) -> None:
    write_bundle(models, version=2)
    one = Operated(
        start_server,
        tmp_path,
        "versions = 2\nunload_after_s = 1\n[models.mnist]\nlabels = {stable = 1}\n",
    )
    until(lambda: one.states() == {2: "idle", 1: "idle"}, "idle")
    assert [one.versions()[number]["labels"] for number in (2, 1)] == [[], ["stable"]]
    one.admin("label mnist next --version 2")
    assert one.states() == {2: "idle", 1: "idle"}
    with Client(one.address, timeout=WAIT_S) as client:
        listed = {each.version: each for each in client.models()}
        assert listed[1].version_labels == ("stable",)
        assert listed[2].version_labels == ("next",)
        assert client.classify(digit_of(3), model="mnist", label="stable").version == 1
    assert one.server.terminate() == 0
