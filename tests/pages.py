"""The blocks of code in a page of documentation, and a shell that runs them one after another."""

import contextlib
import os
import queue
import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n)?"
    r"^```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        number: From 0, in the order of the page.
        language: What the fence says; "" is the shell.
        code: What is in it.
        reason: Why it is not run; None: it is run.
    """

    number: int
    language: str
    code: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.number}: {self.code.splitlines()[0][:60].strip()}"


def blocks(text: str) -> list[Block]:
    """Returns the blocks of a page, in order.

    One that is not run has the comment <!-- not run: REASON --> on the line above it.
    """
    return [
        Block(number, found["language"], found["code"], found["reason"])
        for number, found in enumerate(_FENCE.finditer(text))
    ]


def commands(code: str) -> Iterator[list[str]]:
    """Yields the words of each line of a block that calls one of our programs.

    Lines that end in a backslash go on.
    """
    for line in code.replace("\\\n", " ").splitlines():
        # What another command prints into a line is not known here.
        if re.match(r"convserve(-serve|-train)? ", line) and "$(" not in line:
            words = shlex.split(line, comments=True)
            ends = [index for index, word in enumerate(words) if word in ("&", ">", "|")]
            yield words[: ends[0]] if ends else words


class Shell:
    """One bash that runs blocks one after another, and ends at the first command that fails.

    Standard input of what it runs is empty. What it starts in the background is of its session,
    and is killed with it.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail"],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def run(self, block: Block, limit_s: float) -> str:
        """Runs a block; returns what was printed meanwhile, in the background too.

        Raises:
            AssertionError: A command failed, or the block took too long; with what was printed.
        """
        suffix = ".py" if block.language == "python" else ".sh"
        file = self._folder / f".block-{block.number}{suffix}"
        file.write_text(block.code)
        return self._until_done(f"{'python' if suffix == '.py' else '.'} ./{file.name}", limit_s)

    def wait(self, limit_s: float) -> None:
        """Waits for what was started in the background.

        Raises:
            AssertionError: Something still runs.
        """
        self._until_done("wait", limit_s)

    def close(self) -> None:
        """Kills what is left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)
        with self._bash:
            assert self._bash.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._bash.stdin.close()
        self._reader.join()

    def _until_done(self, command: str, limit_s: float) -> str:
        mark = f"-- {command} is done --"
        assert self._bash.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # It ended at a block before.
            self._bash.stdin.write(f"{command} </dev/null; echo; echo '{mark}'\n")
            self._bash.stdin.flush()
        printed: list[str] = []
        deadline_s = time.monotonic() + limit_s
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except queue.Empty:
                raise AssertionError(
                    f"{command} took longer than {limit_s:g} s:\n{''.join(printed)}"
                ) from None
            if line is None:
                self._lines.put(None)
                raise AssertionError(f"a command of {command} failed:\n{''.join(printed)}")
            if line.rstrip() == mark:
                return "".join(printed)
            printed.append(line)

    def _read(self) -> None:
        assert self._bash.stdout is not None
        for line in self._bash.stdout:
            self._lines.put(line)
        self._lines.put(None)
