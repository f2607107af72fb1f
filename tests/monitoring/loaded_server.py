"""A real server with a metrics page, and callers of all kinds."""

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness.ports import free_port
from convserve import Client, ConvserveError
from tests.bundles import digit_of
from tests.jpegs import jpeg_of
from tests.system.conftest import ServerProcess


@dataclass(frozen=True)
class Server:
    """A server that serves.

    Attributes:
        address: for calls, HOST:PORT.
        page: of its metrics, HOST:PORT.
    """

    address: str
    page: str


@contextmanager
def serving(models: Path, *flags: str) -> Iterator[Server]:
    """Runs a server over a models folder, with two workers."""
    port = str(free_port())
    server = ServerProcess(models, "--metrics-port", port, "--workers", "2", *flags)
    try:
        yield Server(server.wait_until_serving(), f"127.0.0.1:{port}")
    finally:
        server.process.kill()
        server.wait()


@contextmanager
def load(address: str) -> Iterator[None]:
    """Calls all the while: pixels, files, what is damaged, what does not exist."""
    ended = threading.Event()

    def call() -> None:
        digits = np.stack([digit_of(index % 10) for index in range(3)])
        photo = jpeg_of("red")
        with Client(address) as client:
            while not ended.wait(0.02):
                client.classify(digits, model="mnist")
                client.classify_images([photo, photo], model="colours")
                with contextlib.suppress(ConvserveError):
                    client.classify_images(photo[:200], model="colours")
                with contextlib.suppress(ConvserveError):
                    client.classify(digits, model="absent")

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
