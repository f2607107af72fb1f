"""The key by which a server knows the caller: sent with each call, renewed, and never shown."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from convserve import Client, InvalidRequest
from convserve.caller_key import CallerKey
from tests.clients.conftest import Connect
from tests.clients.scripted_server import ScriptedServer

KEY = "shop.8f2c-SECRET"
DIGIT = np.zeros((28, 28), np.uint8)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shop.key"
    path.write_text(f"{KEY}\n")
    return path


def sent(server: ScriptedServer) -> list[str | None]:
    return [each.get("authorization") for each in server.metadata]


def test_key_goes_with_each_call(connect: Connect, server: ScriptedServer, file: Path) -> None:
    client = connect(key_file=file, priority="batch")
    client.classify(DIGIT)
    client.classify(np.zeros((100, 28, 28), np.uint8))
    list(client.stream([DIGIT]))
    assert sent(server) == [f"Bearer {KEY}"] * 4
    assert {each["convserve-priority"] for each in server.metadata} == {"batch"}


def test_without_a_key_nothing_is_sent(connect: Connect, server: ScriptedServer) -> None:
    connect().classify(DIGIT)
    assert sent(server) == [None]


def test_key_of_the_environment(
    server: ScriptedServer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVSERVE_KEY_FILE", str(file))
    with Client(server.address, model="mnist") as client:
        client.classify(DIGIT)
    assert sent(server) == [f"Bearer {KEY}"]


def test_renewed_key_is_sent_from_then_on(
    connect: Connect, server: ScriptedServer, file: Path, tmp_path: Path
) -> None:
    client = connect(key_file=file)
    client.classify(DIGIT)
    new = tmp_path / "new"
    new.write_text("renewed")
    new.rename(file)
    client.classify(DIGIT)
    # While it is being renewed there may be nothing, or half of it.
    file.write_text("")
    client.classify(DIGIT)
    file.unlink()
    client.classify(DIGIT)
    assert sent(server) == [f"Bearer {KEY}", *["Bearer renewed"] * 3]


def test_file_without_a_key_is_named_and_not_shown(connect: Connect, file: Path) -> None:
    for content, words in (
        (b"", "key_file: expected one line of ASCII without spaces, got .* with nothing in it"),
        (b"two SECRET", "key_file: expected one line .*, got .* with other text"),
        (b"SECRET\nline", "key_file: .* with other text"),
        ("SECRÉT".encode(), "key_file: .* with other text"),
        (b"SECRET" * 2000, "key_file: .* with other text"),
    ):
        file.write_bytes(content)
        with pytest.raises(InvalidRequest, match=words) as caught:
            connect(key_file=file).classify(DIGIT)
        assert "SECR" not in str(caught.value)
    file.unlink()
    with pytest.raises(InvalidRequest, match=r"^key_file: expected a file that can be read, got "):
        connect(key_file=file).classify(DIGIT)


def test_key_is_not_shown(file: Path) -> None:
    key = CallerKey(str(file))
    assert key.metadata() == (("authorization", f"Bearer {KEY}"),)
    with Client("localhost:1", key_file=file) as client:
        for shown in (repr(key), str(key), repr(client._settings), repr(vars(client))):
            assert KEY not in shown


def test_file_is_read_only_where_it_has_changed(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = CallerKey(os.fspath(file))
    key.metadata()
    monkeypatch.setattr("convserve.caller_key._read", lambda _: pytest.fail("read again"))
    key.metadata()


def test_key_in_plain_text_to_another_machine_is_warned_of_once(file: Path) -> None:
    key = CallerKey(str(file))
    with pytest.warns(UserWarning, match="goes to far.example:1 in plain text") as caught:
        key.warn_in_plain("far.example:1")
    assert KEY not in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        key.warn_in_plain("far.example:1")
        key.warn_in_plain("localhost:1")
        key.warn_in_plain("unix:/run/a")
