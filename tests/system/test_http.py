"""HTTP of a whole server: workers that share the port, and a stop."""

import socket
import subprocess
import sys
from pathlib import Path

from benchmarks.harness.ports import free_port
from tests.server.http_client import PNG, HttpClient
from tests.system.conftest import WAIT_S, StartServer

URL = "/v1/models/mnist:classify?top_k=1"


def test_two_workers_share_the_port_and_end_their_connections_when_they_stop(
    start_server: StartServer,
) -> None:
    port = free_port()
    server = start_server("--workers", "2", "--http-port", str(port), "--lame-duck-s", "0")
    address = server.wait_for("HTTP on")["http_address"]
    assert address == f"127.0.0.1:{port}"
    clients = [HttpClient(port) for _ in range(32)]
    try:
        for client in clients:
            assert client.ask("POST", URL, PNG).json["model"] == "mnist"
        # The kernel chooses for each connection: all 32 with one happens once in 2**31.
        for pid in server.worker_pids():
            assert connections_of(pid, port), f"worker {pid} has none"
        assert server.terminate() == 0
        assert all(client.is_closed() for client in clients)
    finally:
        for client in clients:
            client.close()


def connections_of(pid: int, port: int) -> int:
    """Connections to a port that a process has."""
    table = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    ours = {
        fields[9]
        for fields in map(str.split, table)
        if fields[1].endswith(f":{port:04X}") and fields[3] == "01"
    }
    links = [link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir()]
    return len({f"socket:[{inode}]" for inode in ours} & set(map(str, links)))


def test_port_that_is_in_use_is_named_with_its_flag(models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = subprocess.run(
            [
                sys.executable, "-m", "convserve_server.main", "--models", str(models),
                "--port", "0", "--http-port", str(port),
            ],
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )  # fmt: skip
    assert ran.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in ran.stderr
    assert ran.stderr.endswith("choose another with --host and --http-port\n")
