"""The path of a socket that only its owner may open."""

import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from convserve_server.host.private_socket import MOST_BYTES, PrivateSocket


class Listener:
    """Listens on a path, and shows what was there at that moment."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.path = Path()
        self.folder_mode = 0

    def bind(self, path: str) -> None:
        self.path = Path(path)
        self.folder_mode = stat.S_IMODE(self.path.parent.stat().st_mode)
        self.socket.bind(path)
        self.socket.listen()


@pytest.fixture
def listen() -> Iterator[Callable[[Path], tuple[Listener, PrivateSocket]]]:
    with ExitStack() as stack:

        def make(path: Path) -> tuple[Listener, PrivateSocket]:
            listener = Listener()
            stack.callback(listener.socket.close)
            return listener, PrivateSocket(path, listener.bind)

        yield make


Listen = Callable[[Path], tuple[Listener, PrivateSocket]]


def can_connect(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_socket_is_the_owners_alone_from_its_first_moment(
    tmp_path: Path, listen: Listen, umask: int
) -> None:
    before = os.umask(umask)
    try:
        listener, made = listen(tmp_path / "admin")
    finally:
        os.umask(before)
    # Nobody else could reach it before it had its mode.
    assert listener.folder_mode == 0o700
    assert listener.path.parent.parent == tmp_path
    found = (tmp_path / "admin").stat()
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert can_connect(tmp_path / "admin")
    assert list(tmp_path.iterdir()) == [tmp_path / "admin"]
    made.close()
    assert list(tmp_path.iterdir()) == []


def test_socket_of_a_dead_server_is_replaced(tmp_path: Path, listen: Listen) -> None:
    path = tmp_path / "admin"
    dead, _ = listen(path)
    dead.socket.close()
    assert path.is_socket()
    listen(path)
    assert can_connect(path)


def test_socket_of_a_living_server_is_left_alone(tmp_path: Path, listen: Listen) -> None:
    path = tmp_path / "admin"
    listen(path)
    with pytest.raises(OSError, match=f"another server listens there: '{path}'"):
        listen(path)
    assert can_connect(path)
    assert list(tmp_path.iterdir()) == [path]


def test_socket_of_a_living_server_that_accepts_nobody_is_left_alone(
    tmp_path: Path, listen: Listen
) -> None:
    path = tmp_path / "admin"
    with socket.socket(socket.AF_UNIX) as busy, ExitStack() as waiting:
        busy.bind(str(path))
        busy.listen(0)
        for _ in range(4):
            client = waiting.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect_ex(str(path))
        with pytest.raises(OSError, match="another server listens there"):
            listen(path)


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_left_alone(tmp_path: Path, listen: Listen, kind: str) -> None:
    path = tmp_path / "admin"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("precious")
    with pytest.raises(FileExistsError, match="expected a socket or nothing, got a file"):
        listen(path)
    assert [each.name for each in tmp_path.iterdir()] == ["admin"]


def test_folder_that_is_not_there_is_named(tmp_path: Path, listen: Listen) -> None:
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/none"):
        listen(tmp_path / "none" / "admin")


def test_close_leaves_the_socket_of_a_successor(tmp_path: Path, listen: Listen) -> None:
    path = tmp_path / "admin"
    first, made = listen(path)
    first.socket.close()
    listen(path)
    made.close()
    assert can_connect(path)


def test_path_of_the_greatest_length_works(tmp_path: Path, listen: Listen) -> None:
    folder = tmp_path
    while len(os.fsencode(folder)) < MOST_BYTES - 40:
        folder /= "f" * 20
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ("n" * (MOST_BYTES - len(os.fsencode(folder)) - 1))
    assert len(os.fsencode(path)) == MOST_BYTES
    listen(path)
    assert can_connect(path)
    with pytest.raises(OSError, match=f"expected a path of at most {MOST_BYTES} bytes"):
        listen(Path(f"{path}n"))
    # The longest folder is that of a name of one letter.
    short = path / "n"
    path.unlink()
    path = Path(*short.parts[:-2]) / short.parts[-2][:-2]
    path.mkdir()
    listen(path / "n")
    assert can_connect(path / "n")
