"""A program ends when its last line is done, whatever of the library it has left open."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.scripted_server import PATIENCE_S, ScriptedServer

HEAD = """
import asyncio, itertools, sys, threading
import numpy as np
from convserve import AsyncClient, Client
ADDRESS = sys.argv[1]
DIGIT = np.zeros((28, 28), np.uint8)

def blocking():
    yield DIGIT
    threading.Event().wait()

def endless():
    while True:
        yield DIGIT
"""

# What is left open, and by whom: each is a whole program of its own.
PROGRAMS = {
    "stream left after its first answer": """
        client = Client(ADDRESS, model="mnist")
        answers = client.stream(DIGIT for _ in range(100))
        print(next(answers)[0], flush=True)
    """,
    "endless items": """
        client = Client(ADDRESS, model="mnist")
        for number, _ in client.stream(endless()):
            break
        print(number, flush=True)
        kept = client.stream(endless())
        next(kept)
    """,
    "items that block": """
        client = Client(ADDRESS, model="mnist")
        answers = client.stream(blocking())
        print(next(answers)[0], flush=True)
    """,
    "stream closed while its items block": """
        client = Client(ADDRESS, model="mnist")
        answers = client.stream(blocking())
        print(next(answers)[0], flush=True)
        answers.close()
        client.close()
    """,
    "stream read by a daemon": """
        client = Client(ADDRESS, model="mnist")
        began = threading.Event()
        def read():
            for _ in client.stream(blocking()):
                began.set()
        threading.Thread(target=read, daemon=True).start()
        print(0 if began.wait(60) else "nothing came", flush=True)
    """,
    "eight streams": """
        client = Client(ADDRESS, model="mnist")
        kept = [client.stream(endless()) for _ in range(8)]
        print(sum(next(each)[0] for each in kept), flush=True)
    """,
    "calls of many images in a daemon": """
        client = Client(ADDRESS, model="mnist", max_images_per_call=1)
        answered = threading.Event()
        def ask():
            while True:
                client.classify(np.stack([DIGIT] * 32))
                answered.set()
        threading.Thread(target=ask, daemon=True).start()
        print(0 if answered.wait(60) else "nothing came", flush=True)
    """,
    "asyncio: stream left after its first answer": """
        async def main():
            client = AsyncClient(ADDRESS, model="mnist")
            answers = client.stream(endless())
            print((await anext(answers))[0], flush=True)
            return client, answers
        kept = asyncio.run(main())
    """,
    "asyncio: loop that is never closed": """
        async def main():
            client = AsyncClient(ADDRESS, model="mnist")
            answers = client.stream(endless())
            print((await anext(answers))[0], flush=True)
            return client, answers
        loop = asyncio.new_event_loop()
        kept = loop.run_until_complete(main())
    """,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_ends_by_itself(server: ScriptedServer, tmp_path: Path, name: str) -> None:
    program = tmp_path / "program.py"
    lines = PROGRAMS[name].strip("\n").splitlines()
    program.write_text(HEAD + "\n".join(line.removeprefix(" " * 8) for line in lines))
    done = subprocess.run(
        [sys.executable, str(program), server.address],
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE_S,
    )
    assert (done.returncode, done.stdout.split()) == (0, ["0"]), done.stderr
    # asyncio.run closes generators that are inside each other at once, and logs that it cannot.
    assert name.startswith("asyncio") or "Traceback" not in done.stderr
