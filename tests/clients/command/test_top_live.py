"""`convserve top` on a terminal: what is drawn when the page, or the size, is another one."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator

import pytest

from benchmarks.harness.ports import free_port
from tests.clients.scripted_server import PATIENCE_S
from tests.metrics_pages import MetricsServer
from tests.program import Program

COMMAND = [sys.executable, "-m", "convserve.main", "top", "--interval", "0.05"]
TO_SECOND_SCREEN, BACK = b"\x1b[?1049h", b"\x1b[?1049l"


@pytest.fixture
def page() -> Iterator[MetricsServer]:
    # Some tests have it end and come back, and meanwhile the port is nobody else's.
    server = MetricsServer(free_port())
    server.metrics.calls(8)
    yield server
    server.stop()


class Terminal:
    """A terminal with the command in it."""

    def __init__(self, page: MetricsServer, **variables: str) -> None:
        self._ours, theirs = pty.openpty()
        self.resize(80, 24)
        environment = {**os.environ, "TERM": "xterm-256color", **variables}
        for name in ("NO_COLOR", "COLUMNS", "LINES"):
            if name not in variables:
                environment.pop(name, None)
        command = [*COMMAND, "--metrics", page.url]
        self.program = Program[bytes](
            command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=environment
        )
        os.close(theirs)
        self._unread = b""

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal a size; the program has to be signalled."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read_until(self, pattern: bytes) -> bytes:
        """What is drawn next, up to a pattern: of what comes at once, no more than that."""
        while not (found := re.search(pattern, self._unread, re.DOTALL)):
            assert select.select([self._ours], [], [], PATIENCE_S)[0], self._unread
            self._unread += os.read(self._ours, 4096)
        drawn, self._unread = self._unread[: found.end()], self._unread[found.end() :]
        return drawn

    def end(self, by: signal.Signals = signal.SIGINT) -> tuple[int, bytes]:
        """Interrupts the program; returns its exit status and what it drew at last."""
        self.program.send_signal(by)
        drawn = self.read_until(re.escape(BACK))
        return self.program.wait(PATIENCE_S), drawn

    def __enter__(self) -> "Terminal":
        self.program.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.program.__exit__(*error)  # type: ignore[arg-type]
        os.close(self._ours)


def test_second_screen_is_drawn_anew_and_left_by_ctrl_c(page: MetricsServer) -> None:
    with Terminal(page) as terminal:
        drawn = terminal.read_until(rb"mnist/1 +.*supervisor")
        assert drawn.count(TO_SECOND_SCREEN) == 1
        page.metrics.set("model_state", 1, "cats-dogs", "2", "loading")
        terminal.read_until(rb"cats-dogs/2 .*loading")
        status, _ = terminal.end()
        assert status == 130
        assert terminal.program.stderr is not None
        assert terminal.program.stderr.read() == b""


def test_sigterm_leaves_the_screen_too(page: MetricsServer) -> None:
    with Terminal(page) as terminal:
        terminal.read_until(rb"mnist/1")
        assert terminal.end(signal.SIGTERM)[0] == 143


def test_wider_terminal_shows_more_at_once(page: MetricsServer) -> None:
    with Terminal(page) as terminal:
        assert b"compute p99" not in terminal.read_until(rb"mnist/1 .*supervisor")
        terminal.resize(200, 24)
        terminal.program.send_signal(signal.SIGWINCH)
        terminal.read_until(rb"compute p99")
        terminal.end()


def test_many_versions_leave_space_for_what_is_below(page: MetricsServer) -> None:
    for number in range(100):
        page.metrics.set("model_state", 1, f"model-{number}", "1", "served")
    with Terminal(page) as terminal:
        drawn = terminal.read_until(rb"supervisor")
        assert re.search(rb"and 8\d more", drawn)
        assert drawn.count(b"served") < 24
        terminal.end()


def test_page_that_is_gone_is_named_and_its_return_seen(page: MetricsServer) -> None:
    with Terminal(page) as terminal:
        terminal.read_until(rb"mnist/1")
        page.stop()
        drawn = terminal.read_until(rb"no page now: Connection refused")
        assert b"mnist/1" in terminal.read_until(rb"supervisor") + drawn
        back = MetricsServer(page.port)
        try:
            back.metrics.set("model_state", 1, "cats-dogs", "2", "served")
            terminal.read_until(rb"cats-dogs/2")
            assert b"no page now" not in terminal.read_until(rb"supervisor.*supervisor")
            assert terminal.end()[0] == 130
        finally:
            back.stop()


@pytest.mark.parametrize(
    ("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)], ids=["colours", "none"]
)
def test_colours_are_left_out_where_nobody_wants_them(
    page: MetricsServer, variables: dict[str, str], coloured: bool
) -> None:
    with Terminal(page, **variables) as terminal:
        drawn = terminal.read_until(rb"mnist/1 .*supervisor")
        assert (b"\x1b[32mserved" in drawn) is coloured
        terminal.end()


def test_terminal_that_can_draw_nothing_gets_text(page: MetricsServer) -> None:
    with Terminal(page, TERM="dumb") as terminal:
        drawn = terminal.read_until(rb"supervisor")
        assert b"\x1b" not in drawn
        assert terminal.program.wait(PATIENCE_S) == 0


def test_lines_of_json_go_on_past_a_page_that_is_gone(page: MetricsServer) -> None:
    command = [*COMMAND, "--metrics", page.url, "--format", "jsonl"]
    with Program[str](
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        assert json.loads(program.stdout.readline())["interval_s"] > 0
        page.stop()
        assert "Connection refused" in program.stderr.readline()
        back = MetricsServer(page.port)
        try:
            # What came before the page was gone may still be there.
            while json.loads(program.stdout.readline())["models"][0]["since_start"]["calls"]:
                pass
        finally:
            back.stop()
        program.send_signal(signal.SIGINT)
        assert program.wait(PATIENCE_S) == 130
