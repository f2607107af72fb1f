"""A process that is forked from one that used a client: nothing hangs there, calls or exits."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.scripted_server import PATIENCE_S, ScriptedServer

HEAD = """
import asyncio, collections, multiprocessing, os, signal, sys, threading
import numpy as np
from convserve import AsyncClient, Client, ForkedProcess
ADDRESS, CHILDREN, PATIENCE_S = sys.argv[1], 8, 60
DIGIT = np.zeros((28, 28), np.uint8)
client = Client(ADDRESS, model="mnist", timeout=30)

def keep_busy():
    # As many calls and a stream as keep gRPC's threads and locks in use while forks happen.
    def ask():
        while True:
            client.classify(DIGIT)
    def read():
        for _ in client.stream(DIGIT for _ in iter(int, 1)):
            pass
    for work in (ask, ask, ask, read):
        threading.Thread(target=work, daemon=True).start()

def fork(work):
    # Each child ends as a program does, with all that is tidied up then, not by os._exit.
    for _ in range(CHILDREN):
        pid = os.fork()
        if pid == 0:
            signal.alarm(PATIENCE_S)  # Ends a child that hangs, and says so by its status.
            try:
                work()
            except ForkedProcess:
                sys.exit(7)
            sys.exit(0)
        yield os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def report(statuses):
    print(dict(collections.Counter(statuses)), flush=True)
"""

# Each forks, and prints how its children ended: 0 for an answer, 7 for ForkedProcess.
PROGRAMS = {
    "unused client": (
        """
        report(fork(lambda: client.classify(DIGIT)))
        client.classify(DIGIT)
        """,
        "{0: 8}",
    ),
    "idle, inherited client": (
        """
        client.classify(DIGIT)
        report(fork(lambda: client.classify(DIGIT)))
        client.classify(DIGIT)
        """,
        "{7: 8}",
    ),
    "busy, inherited client": (
        """
        client.classify(DIGIT)
        keep_busy()
        report(fork(lambda: client.classify(DIGIT)))
        client.classify(DIGIT)
        """,
        "{7: 8}",
    ),
    "busy, new client": (
        """
        client.classify(DIGIT)
        keep_busy()
        report(fork(lambda: Client(ADDRESS).health()))
        client.classify(DIGIT)
        """,
        "{7: 8}",
    ),
    "busy, new client for an event loop": (
        """
        client.classify(DIGIT)
        keep_busy()
        report(fork(lambda: asyncio.run(AsyncClient(ADDRESS).health())))
        client.classify(DIGIT)
        """,
        "{7: 8}",
    ),
    "closed before": (
        """
        client.classify(DIGIT)
        client.close()
        report(fork(lambda: Client(ADDRESS).health()))
        """,
        "{7: 8}",
    ),
    "busy, child that only ends": (
        """
        client.classify(DIGIT)
        keep_busy()
        report(fork(lambda: None))
        client.classify(DIGIT)
        """,
        "{0: 8}",
    ),
    "busy, child that closes its copy": (
        """
        client.classify(DIGIT)
        keep_busy()
        report(fork(client.close))
        client.classify(DIGIT)
        """,
        "{0: 8}",
    ),
    "stream that the parent has open": (
        """
        answers = client.stream(DIGIT for _ in iter(int, 1))
        next(answers)
        keep_busy()
        report(fork(lambda: next(answers) and next(answers)))
        next(answers)
        """,
        "{7: 8}",
    ),
    "client of an event loop that was used": (
        """
        async def ask():
            async with AsyncClient(ADDRESS, model="mnist") as asking:
                await asking.classify(DIGIT)
                return asking
        kept = asyncio.run(ask())
        report(fork(lambda: asyncio.run(ask())))
        asyncio.run(ask())
        """,
        "{7: 8}",
    ),
    "pool of processes": (
        """
        def ask(_):
            try:
                return client.classify(DIGIT).label
            except ForkedProcess:
                return 7
        client.classify(DIGIT)
        keep_busy()
        with multiprocessing.get_context("fork").Pool(2) as pool:
            report(pool.map_async(ask, range(8)).get(PATIENCE_S))
        client.classify(DIGIT)
        """,
        "{7: 8}",
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_fork_neither_hangs_nor_harms(server: ScriptedServer, tmp_path: Path, name: str) -> None:
    lines, report = PROGRAMS[name]
    program = tmp_path / "program.py"
    unindented = [line.removeprefix(" " * 8) for line in lines.strip("\n").splitlines()]
    program.write_text("\n".join([HEAD, *unindented]))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(program), server.address],
        capture_output=True,
        text=True,
        timeout=6 * PATIENCE_S,
    )
    assert (done.returncode, done.stdout) == (0, report + "\n"), done.stderr
