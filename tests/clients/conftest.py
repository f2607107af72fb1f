import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.clients.both_clients import AnyClient, AsyncFace, Loop, SyncFace
from tests.clients.scripted_server import PATIENCE_S, ScriptedServer

Connect = Callable[..., AnyClient]


@pytest.fixture(autouse=True)
def _environment_names_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("CONVSERVE_")]:
        monkeypatch.delenv(variable)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    scripted = ScriptedServer()
    yield scripted
    scripted.stop()


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    running = Loop()
    yield running
    running.stop()


@pytest.fixture(params=["sync", "async"])
def connect(
    request: pytest.FixtureRequest, server: ScriptedServer, loop: Loop
) -> Iterator[Connect]:
    """Makes clients of the server, of the one kind and of the other; closes them afterwards."""
    clients: list[AnyClient] = []

    def make(address: str | None = None, **options: Any) -> AnyClient:
        options = {"model": "mnist", "timeout": PATIENCE_S} | options
        target = address or server.address
        client: AnyClient = (
            SyncFace(target, **options)
            if request.param == "sync"
            else AsyncFace(loop, target, **options)
        )
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def digits() -> npt.NDArray[np.uint8]:
    """uint8 [100, 28, 28], no two alike."""
    return np.random.default_rng(1).integers(0, 256, (100, 28, 28), np.uint8)


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """one.png and bar.png are drawings, blank.png has nothing on it, notes.txt is not a picture."""
    sheet = np.full((60, 50), 255, np.uint8)
    Image.fromarray(sheet).save(tmp_path / "blank.png")
    sheet[10:50, 22:28] = 0
    Image.fromarray(sheet).save(tmp_path / "one.png")
    sheet[44:50, 10:40] = 30
    Image.fromarray(sheet).save(tmp_path / "bar.png")
    (tmp_path / "notes.txt").write_text("no picture")
    monkeypatch.chdir(tmp_path)
    return tmp_path
