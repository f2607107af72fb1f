"""TLS and keys of all commands: how they are asked for, and how a command ends without them."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from PIL import Image

from convserve.main import main
from tests.certificates import Authority
from tests.clients.scripted_server import ScriptedServer

Capture = pytest.CaptureFixture[str]

SHORT = ["--seconds", "0.2", "--warm-up", "0", "--callers", "2"]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def secured(authority: Authority) -> Iterator[ScriptedServer]:
    """A server that requires certificates of its clients."""
    mine = authority.server()
    tls = grpc.ssl_server_credentials(
        [(mine.key.read_bytes(), mine.cert.read_bytes())],
        authority.ca.read_bytes(),
        require_client_auth=True,
    )
    server = ScriptedServer(tls=tls)
    yield server
    server.stop()


@pytest.fixture
def commands(pictures: Path) -> dict[str, list[str]]:
    """Each command that asks a server."""
    digits = pictures / "digits" / "1"
    digits.mkdir(parents=True)
    Image.open(pictures / "one.png").save(digits / "one.png")
    return {
        "health": ["health"],
        "models": ["models"],
        "classify": ["classify", "one.png"],
        "evaluate": ["evaluate", "digits"],
        "bench": ["bench", *SHORT],
    }


def test_servers_behind_a_name_show_certificates_of_the_name(
    authority: Authority, capsys: Capture
) -> None:
    # Not of the address that each of them is asked at.
    mine = authority.issue("localhost")
    pair = (mine.key.read_bytes(), mine.cert.read_bytes())
    server = ScriptedServer(tls=grpc.ssl_server_credentials([pair]))
    try:
        port = server.address.rpartition(":")[2]
        flags = ["--tls-ca", str(authority.ca), "--format", "jsonl"]
        assert main(["models", "--fleet", f"localhost:{port}", *flags]) == 0
        assert f'"replica": "127.0.0.1:{port}"' in capsys.readouterr().out
        assert main(["models", "--fleet", f"127.0.0.1:{port}", *flags]) == 1
        assert "certificate" in capsys.readouterr().err
    finally:
        server.stop()


@pytest.mark.parametrize("command", ["health", "models", "classify", "evaluate", "bench"])
def test_options_are_those_of_every_command(
    secured: ScriptedServer,
    authority: Authority,
    commands: dict[str, list[str]],
    tmp_path: Path,
    capsys: Capture,
    command: str,
) -> None:
    mine = authority.client()
    key = tmp_path / "key"
    key.write_text("SECRET")
    flags = ["--server", secured.address, "--tls-ca", str(authority.ca), "--key-file", str(key)]
    flags += ["--tls-cert", str(mine.cert), "--tls-key", str(mine.key)]
    assert main([*commands[command], *flags]) == 0
    printed = capsys.readouterr()
    assert "SECRET" not in printed.out + printed.err
    assert {each["authorization"] for each in secured.metadata} <= {"Bearer SECRET"}
    assert bool(secured.metadata) is (command in ("classify", "evaluate", "bench"))


@pytest.mark.parametrize("command", ["health", "models", "classify", "evaluate", "bench"])
def test_cause_is_printed_and_the_command_ends_at_once(
    secured: ScriptedServer,
    authority: Authority,
    commands: dict[str, list[str]],
    capfd: pytest.CaptureFixture[str],
    command: str,
) -> None:
    flags = ["--server", secured.address, "--wait", "600", "--tls-ca", str(authority.ca)]
    assert main([*commands[command], *flags]) == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    assert (
        f"convserve: cannot connect to {secured.address}: the server requires a certificate of the"
        " client; tls_cert and tls_key, or --tls-cert and --tls-key, give it\n"
    ) in printed.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "the server speaks TLS there; --tls"),
        (["--tls"], "of an authority that is not trusted here; tls_ca or --tls-ca"),
        (
            ["--tls-ca", "ca.pem", "--tls-server-name", "other.example"],
            "the server's certificate is not for other.example; tls_server_name or",
        ),
        (["--tls-ca", "gone.pem"], "tls_ca: expected a file that can be read, got gone.pem: No"),
        (["--tls-cert", "ca.pem"], "tls_key: expected a file beside tls_cert, got none"),
        (["--key-file", "gone"], "key_file: expected a file that can be read, got gone: No"),
    ],
)
def test_health_names_what_is_wrong(
    secured: ScriptedServer,
    authority: Authority,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(authority.ca.parent)
    assert main(["health", "--server", secured.address, *flags]) == 1
    assert words in capsys.readouterr().err


def test_expired_certificate_is_printed(authority: Authority, capsys: Capture) -> None:
    mine = authority.server(days=-1)
    pair = (mine.key.read_bytes(), mine.cert.read_bytes())
    server = ScriptedServer(tls=grpc.ssl_server_credentials([pair]))
    flags = ["--server", server.address, "--tls-ca", str(authority.ca)]
    assert main(["health", *flags]) == 1
    server.stop()
    assert capsys.readouterr().err == (
        f"convserve: cannot connect to {server.address}: the server's certificate has expired\n"
    )


@pytest.mark.filterwarnings("default::UserWarning")
def test_key_in_plain_text_to_another_machine_is_a_line(tmp_path: Path, capsys: Capture) -> None:
    key = tmp_path / "key"
    key.write_text("SECRET")
    # TEST-NET-1 of RFC 5737, where nobody is.
    flags = ["--server", "192.0.2.1:1", "--timeout", "0.1", "--key-file", str(key)]
    assert main(["health", *flags]) == 1
    first = capsys.readouterr().err.splitlines()[0]
    assert first == (
        f"convserve: warning: the key in {key} goes to 192.0.2.1:1 in plain text, for all on the"
        " way to read: speak TLS, by tls=True, tls_ca or --tls"
    )
