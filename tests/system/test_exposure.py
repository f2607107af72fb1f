"""What other machines reach is protected, or meant to be open."""

import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.system.conftest import WAIT_S, StartServer
from tests.system.test_reload import Configured

REFUSED = (
    "host: expected TLS (tls_cert), keys (keys) or --insecure for an address that other machines "
    "reach, got 0.0.0.0"
)


@pytest.mark.parametrize("check", [(), ("--check",)])
def test_open_port_without_protection_does_not_start(check: tuple[str, ...], models: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "convserve_server.main", "--models", models, "--host", "0.0.0.0",
         "--port", "0", *check],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == f"convserve-serve: {REFUSED}\n"


def test_open_port_that_is_wanted_is_warned_of_and_serves(start_server: StartServer) -> None:
    server = start_server("--host", "0.0.0.0", "--insecure", "--workers", "1")
    entry = server.wait_for("insecure: host 0.0.0.0 is reached by other machines")
    assert entry["level"] == "warning"
    assert server.wait_until_serving().startswith("0.0.0.0:")
    assert server.terminate() == 0


def test_protection_of_an_open_port_cannot_be_taken_away(
    start_server: StartServer, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    issued = authority.server()
    tls = f'tls_cert = "{issued.cert}"\ntls_key = "{issued.key}"\n'
    one = Configured(start_server, tmp_path / "c.toml", f'host = "0.0.0.0"\n{tls}', "--workers=1")
    for content in ('host = "0.0.0.0"\n', 'host = "127.0.0.1"\n', "insecure = true\n"):
        stays = one.reload(content).partition("unchanged until the server is started again: ")[2]
        assert {"tls_cert", "tls_key"} <= set(stays.split(", "))
    # It speaks TLS alone, as before.
    context = ssl.create_default_context(cafile=str(authority.ca))
    host, _, port = one.address.rpartition(":")
    with socket.create_connection(("127.0.0.1", int(port)), WAIT_S) as plain:
        context.wrap_socket(plain, server_hostname="localhost").close()
    assert one.server.terminate() == 0
