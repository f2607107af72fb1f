import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import convserve
from convserve import Cancelled
from tests.clients.conftest import Connect
from tests.clients.scripted_server import PATIENCE_S

# The pauses between them grow from 0.2 s: 1 s. By gRPC's own bounds it would be 5 s.
TRIES = 4


class Refuser:
    """Takes connections and closes them at once, as a machine does whose server is gone."""

    def __init__(self) -> None:
        self.tries = threading.Semaphore(0)
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._refuse)
        self._thread.start()

    def _refuse(self) -> None:
        while not self._stopped.is_set():
            connection, _ = self._listener.accept()
            connection.close()
            self.tries.release()

    def stop(self) -> None:
        self._stopped.set()
        socket.create_connection(self._listener.getsockname()).close()
        self._thread.join(PATIENCE_S)
        self._listener.close()


@pytest.fixture
def refuser() -> Iterator[Refuser]:
    refusing = Refuser()
    yield refusing
    refusing.stop()


def test_server_that_is_gone_is_tried_again_within_seconds(
    connect: Connect, refuser: Refuser
) -> None:
    client = connect(refuser.address, wait_for_ready=True, timeout=2 * PATIENCE_S)
    with ThreadPoolExecutor(1) as thread:
        asking = thread.submit(client.health)
        deadline_s = time.monotonic() + PATIENCE_S
        tries = 0
        while tries < TRIES and refuser.tries.acquire(
            timeout=max(0.0, deadline_s - time.monotonic())
        ):
            tries += 1
        client.close()
        assert isinstance(asking.exception(PATIENCE_S), Cancelled)
    assert tries == TRIES


def test_channels_are_opened_only_by_the_shared_package() -> None:
    package = Path(convserve.__file__).parent
    found = [file.name for file in package.rglob("*.py") if "secure_channel(" in file.read_text()]
    assert found == ["channel.py"]
