"""SIGTERM ends every command at once and cleanly, as Ctrl-C does; its exit status is its own."""

import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from convserve.command.stopping import Terminated, terminated_by_sigterm
from convserve.main import main
from convserve_protos import bundle_pb2, classifier_pb2
from tests.clients.scripted_server import PATIENCE_S, ScriptedServer, answer, model
from tests.clients.test_retries import reserved_address
from tests.program import Program

FILES = 300
PIPE_BYTES = 4096  # The least that Linux makes.
ROW_BYTES = 300  # About.
PROGRAM = [sys.executable, "-c", "import sys; from convserve.main import main; sys.exit(main())"]
BOTH = pytest.mark.parametrize(
    ("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["term", "int"]
)


@pytest.fixture
def photos(tmp_path: Path, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("CONVSERVE_SERVER", server.address)
    server.models = [model("ten", kind=bundle_pb2.IMAGE_KIND_PHOTO)]
    (tmp_path / "set" / "7").mkdir(parents=True)
    for number in range(FILES):
        (tmp_path / "set" / "7" / f"{number:03}.jpg").write_bytes(b"\x07" + b"\n" * number)
    return str(tmp_path / "set")


class Stuck:
    """Answers files up to a number, then none, and shows when one is not answered."""

    def __init__(self, server: ScriptedServer, number: int) -> None:
        self._number = number
        self._here = threading.Event()
        self._release = threading.Event()
        server.answer = self

    def __call__(self, request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        if len(request.encoded.images[0]) > self._number:
            self._here.set()
            assert self._release.wait(PATIENCE_S)
        return answer(request)

    def wait(self) -> None:
        assert self._here.wait(PATIENCE_S)

    def close(self) -> None:
        self._release.set()


@BOTH
def test_classify_leaves_whole_rows(
    server: ScriptedServer, photos: str, sent: signal.Signals, status: int
) -> None:
    command = [*PROGRAM, "classify", photos, "--format", "jsonl"]
    with (
        closing(Stuck(server, number=100)) as stuck,
        Program[bytes](command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running,
    ):
        assert running.stdout is not None
        rows = [json.loads(running.stdout.readline()) for _ in range(100)]
        stuck.wait()
        running.send_signal(sent)
        rest, err = running.communicate(timeout=PATIENCE_S)
    assert (running.returncode, rest, err) == (status, b"", b"")
    assert [Path(row["file"]).name for row in rows] == [f"{number:03}.jpg" for number in range(100)]


@BOTH
@pytest.mark.usefixtures("server")
def test_classify_whose_reader_is_slow_leaves_whole_rows(
    photos: str, sent: signal.Signals, status: int
) -> None:
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    running = Program[bytes](
        [*PROGRAM, "classify", photos, "--format", "jsonl"],
        stdout=write_end,
        stderr=subprocess.PIPE,
    )
    os.close(write_end)
    with os.fdopen(read_end) as rows, running:
        # Then another row does not fit, and the command waits in the middle of writing it.
        assert until(lambda: bytes_in(read_end) > PIPE_BYTES - 2 * ROW_BYTES)
        running.send_signal(sent)
        lines = rows.readlines()
        assert running.wait(PATIENCE_S) == status
    assert 1 < len(lines) < FILES
    assert all(line.endswith("\n") and json.loads(line) for line in lines)


def bytes_in(pipe: int) -> int:
    (count,) = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))
    return int(count)


def until(condition: Callable[[], bool]) -> bool:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return condition()


@BOTH
def test_evaluate_prints_no_score_of_a_part(
    server: ScriptedServer, photos: str, sent: signal.Signals, status: int
) -> None:
    command = [*PROGRAM, "evaluate", photos, "--format", "jsonl"]
    with (
        closing(Stuck(server, number=100)) as stuck,
        Program[bytes](command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running,
    ):
        stuck.wait()
        running.send_signal(sent)
        out, err = running.communicate(timeout=PATIENCE_S)
    assert (running.returncode, out, err) == (status, b"", b"")


@BOTH
@pytest.mark.parametrize("arguments", [["evaluate", "."], ["models"], ["health"]])
def test_wait_for_a_server_ends(
    tmp_path: Path, arguments: list[str], sent: signal.Signals, status: int
) -> None:
    (tmp_path / "7").mkdir()
    with (
        reserved_address() as address,
        Program[bytes](
            [*PROGRAM, *arguments, "--server", address, "--wait", "600"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
        ) as running,
    ):
        assert running.stderr is not None
        assert running.stderr.readline().startswith(b"waiting for ")
        running.send_signal(sent)
        out, err = running.communicate(timeout=PATIENCE_S)
    assert (running.returncode, out, err) == (status, b"", b"")


def test_first_process_of_a_container_hears_sigterm(server: ScriptedServer, photos: str) -> None:
    # A container's first process gets no signal that it has no handler for.
    unshare = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine makes no process namespaces")
    command = [*unshare, *PROGRAM, "classify", photos, "--format", "jsonl"]
    with (
        closing(Stuck(server, number=100)) as stuck,
        Program[bytes](command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running,
    ):
        stuck.wait()
        (first,) = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        os.kill(int(first), signal.SIGTERM)
        running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 143


def test_handler_is_gone_after_the_command(server: ScriptedServer) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert main(["health", "--server", server.address]) == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_raises_what_is_caught_as_ctrl_c() -> None:
    def stopped() -> Iterator[None]:
        with terminated_by_sigterm():
            signal.raise_signal(signal.SIGTERM)
        yield

    with pytest.raises(Terminated):
        next(stopped())
    assert issubclass(Terminated, KeyboardInterrupt)
