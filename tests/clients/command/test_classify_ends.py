"""How a run of `convserve classify` over a folder ends, and what a terminal sees of it."""

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from convserve_protos import bundle_pb2, classifier_pb2
from tests.clients.scripted_server import PATIENCE_S, ScriptedServer, answer, model
from tests.program import Program

FILES = 300
PROGRAM = [sys.executable, "-c", "import sys; from convserve.main import main; sys.exit(main())"]


@pytest.fixture
def photos(tmp_path: Path, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("CONVSERVE_SERVER", server.address)
    server.models = [model("cats-dogs", kind=bundle_pb2.IMAGE_KIND_PHOTO)]
    for number in range(FILES):
        (tmp_path / f"{number:03}.jpg").write_bytes(f"{number:03}".encode())
    return str(tmp_path)


class Stuck:
    """Answers files up to a number, then none, and says when as many calls as are allowed hang."""

    def __init__(self, server: ScriptedServer, number: int, calls: int) -> None:
        self._number = number
        self._left = threading.Semaphore(0)
        self._calls = calls
        self._release = threading.Event()
        server.answer = self

    def __call__(self, request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        if int(request.encoded.images[0]) >= self._number:
            self._left.release()
            assert self._release.wait(PATIENCE_S)
        return answer(request)

    def wait(self) -> None:
        for _ in range(self._calls):
            assert self._left.acquire(timeout=PATIENCE_S)

    def close(self) -> None:
        self._release.set()


def test_interrupt_ends_a_run_with_whole_rows_and_130(server: ScriptedServer, photos: str) -> None:
    command = [*PROGRAM, "classify", photos, "--format", "jsonl", "--in-flight", "8"]
    with (
        closing(Stuck(server, number=100, calls=8)) as stuck,
        Program[bytes](command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running,
    ):
        assert running.stdout is not None
        rows = [json.loads(running.stdout.readline()) for _ in range(100)]
        stuck.wait()
        running.send_signal(signal.SIGINT)
        rest, err = running.communicate(timeout=PATIENCE_S)
    assert (running.returncode, rest, err) == (130, b"", b"")
    assert [Path(row["file"]).name for row in rows] == [f"{number:03}.jpg" for number in range(100)]
    assert len(server.requests) == 108


def test_interrupt_ends_the_wait_for_standard_input(server: ScriptedServer, photos: str) -> None:
    command = [*PROGRAM, "classify", f"{photos}/000.jpg", "-"]
    with Program[bytes](
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        # The file that is named next is read meanwhile, in the thread that signals reach.
        assert server.answered.acquire(timeout=PATIENCE_S)
        running.send_signal(signal.SIGINT)
        assert running.wait(PATIENCE_S) == 130
        assert running.stderr is not None
        assert b"Traceback" not in running.stderr.read()


def test_reader_that_goes_away_ends_a_run_without_a_traceback(
    server: ScriptedServer, photos: str
) -> None:
    command = [*PROGRAM, "classify", photos, "--in-flight", "2"]
    with (
        closing(Stuck(server, number=2, calls=2)) as stuck,
        Program[bytes](command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running,
    ):
        assert running.stdout is not None
        assert running.stdout.readline().split()[0].endswith(b"/000.jpg")
        stuck.wait()
        running.stdout.close()
        # What comes from now on has no reader.
        stuck.close()
        assert running.wait(PATIENCE_S) == 141
        assert running.stderr is not None
        assert running.stderr.read() == b""
    assert len(server.requests) < FILES


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    # A new one has no columns, and nothing is drawn where nothing fits.
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    try:
        yield ours, theirs
    finally:
        os.close(ours)


def seen_on(ours: int) -> str:
    parts = []
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # How Linux says that the other end is closed.
            break
        if not part:
            break
        parts.append(part)
    return b"".join(parts).decode()


@pytest.mark.parametrize("arguments", [[], ["--no-progress"]])
def test_progress_is_drawn_on_a_terminal_beside_a_file(
    server: ScriptedServer, photos: str, tmp_path: Path, arguments: list[str]
) -> None:
    (tmp_path / "000.jpg").write_bytes(b"broken")
    out = tmp_path / "answers.jsonl"
    command = [*PROGRAM, "classify", photos, "--format", "jsonl", *arguments]
    with terminal() as (ours, theirs), out.open("wb") as file:
        running = Program[bytes](command, stdout=file, stderr=theirs)
        os.close(theirs)
        seen = seen_on(ours)
        assert running.wait(PATIENCE_S) == 1
    assert len(out.read_text().splitlines()) == FILES
    assert ("images [" in seen) == (not arguments)
    if not arguments:
        assert "1 failed" in seen
        assert seen.splitlines()[-1].strip().startswith("299 classified (")


def test_rows_on_a_terminal_fit_it_and_have_no_bar_of_progress(
    server: ScriptedServer, photos: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "72")
    with terminal() as (ours, theirs):
        running = Program[bytes]([*PROGRAM, "classify", photos], stdout=theirs, stderr=theirs)
        os.close(theirs)
        seen = seen_on(ours)
        assert running.wait(PATIENCE_S) == 0
    *rows, summary = seen.splitlines()
    assert len(rows) == FILES
    assert all(len(row) <= 72 for row in rows)
    assert rows[7].split()[0].endswith("007.jpg")
    assert summary.startswith("300 classified (")
