"""A whole server with TLS: its health, its clients, certificates that are renewed under load."""

import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness.ports import free_port
from convserve import Client
from tests.certificates import Authority
from tests.server.http_client import PNG
from tests.server.transports.test_conformance import until
from tests.system.conftest import WAIT_S, StartServer

#: The fronts that serve TLS.
TLS_FRONTS = ["grpcio", "native"]


def convserve(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "convserve", *arguments],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


@pytest.mark.parametrize("front", TLS_FRONTS)
def test_every_program_of_ours_and_curl_reach_a_server_with_mutual_tls(
    start_server: StartServer,
    tmp_path: Path,
    front: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    authority = Authority(tmp_path)
    mine, client = authority.server(), authority.client()
    server = start_server(
        *("--front", front, "--http-port", str(port := free_port()), "--workers", "1"),
        *("--tls-cert", str(mine.cert), "--tls-key", str(mine.key)),
        *("--tls-client-ca", str(authority.ca)),
    )
    assert "expires in 1.0 days" in server.wait_for("tls_cert")["message"]
    assert server.wait_for("HTTP on")["message"] == f"HTTP on https://127.0.0.1:{port}"
    address = server.wait_until_serving()
    (tmp_path / "seven.png").write_bytes(PNG)
    shown = ["--tls-cert", str(client.cert), "--tls-key", str(client.key)]
    tls = ["--server", address, "--tls-ca", str(authority.ca), *shown]

    assert convserve("health", *tls).stdout == "SERVING\n"
    classified = convserve("classify", str(tmp_path / "seven.png"), *tls, "--format", "jsonl")
    assert classified.returncode == 0, classified.stderr
    assert json.loads(classified.stdout)["label"]
    short = ["--seconds", "0.5", "--warm-up", "0.1", "--callers", "8", "--connections", "2"]
    measured = convserve("bench", *tls, *short, "--format", "json")
    assert json.loads(measured.stdout)["failed"] == 0, measured.stderr

    refused = convserve("health", "--server", address, "--tls-ca", str(authority.ca))
    assert refused.returncode == 1
    # Nothing else: gRPC writes lines of its own where it may.
    assert refused.stderr == (
        f"convserve: cannot connect to {address}: the server requires a certificate of the client;"
        " tls_cert and tls_key, or --tls-cert and --tls-key, give it\n"
    )
    if shutil.which("curl"):
        url = f"https://localhost:{port}/v1/models/mnist:classify?top_k=1"
        given = ["--cacert", str(authority.ca), "--cert", str(client.cert)]
        given += ["--key", str(client.key), "--data-binary", f"@{tmp_path / 'seven.png'}"]
        asked = subprocess.run(
            ["curl", "-sS", "-f", *given, url], capture_output=True, text=True, check=False
        )
        assert json.loads(asked.stdout)["model"] == "mnist", asked.stderr
    assert server.terminate() == 0
    # Strangers whose handshake fails write nothing into the log.
    assert capfd.readouterr().err == ""


def test_key_that_does_not_belong_to_the_certificate_ends_the_start(
    models: Path, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    one, other = authority.server(), authority.server()
    flags = ["--models", str(models), "--tls-cert", str(one.cert), "--tls-key", str(other.key)]
    ran = subprocess.run(
        [sys.executable, "-m", "convserve_server.main", *flags],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr.startswith(
        "convserve-serve: tls_cert, tls_key: expected a certificate and its private key in PEM, got"
    )


class Load:
    """Calls a server again and again, on a thread of its own.

    Attributes:
        calls: That were answered.
        failure: What ended it; None: it was stopped.
    """

    def __init__(self, call: Callable[[], object]) -> None:
        self.calls = 0
        self.failure: BaseException | None = None
        self._call = call
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(WAIT_S)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._call()
                self.calls += 1
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.failure = error


def serial(address: str, authority: Authority) -> str:
    """Of the certificate that a new connection is shown."""
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context(cafile=authority.ca)
    with (
        socket.create_connection((host, int(port)), WAIT_S) as plain,
        context.wrap_socket(plain, server_hostname=host) as secured,
    ):
        return str((secured.getpeercert() or {})["serialNumber"])


def is_shown_no_longer(old: str, address: str, authority: Authority) -> bool:
    """Whether no worker shows a certificate: each looks by itself, and the kernel chooses one."""
    return all(serial(address, authority) != old for _ in range(16))


@pytest.mark.parametrize("front", TLS_FRONTS)
def test_certificate_is_renewed_under_load_without_a_failed_call(
    start_server: StartServer, tmp_path: Path, front: str
) -> None:
    authority = Authority(tmp_path)
    mine = authority.server(days=100)
    server = start_server(
        *("--front", front, "--workers", "2"),
        *("--tls-cert", str(mine.cert), "--tls-key", str(mine.key)),
    )
    address = server.wait_until_serving()
    options = {"model": "mnist", "timeout": WAIT_S, "tls_ca": str(authority.ca)}
    digit = np.zeros((28, 28), np.uint8)
    lasting = Client(address, **options)  # type: ignore[arg-type]

    def by_a_new_connection() -> None:
        with Client(address, **options) as client:  # type: ignore[arg-type]
            client.classify(digit)

    flags = ["--tls-ca", str(authority.ca), "--callers", "4", "--connections", "4"]
    flags += ["--seconds", "4", "--warm-up", "0", "--format", "json"]
    with subprocess.Popen(
        [sys.executable, "-m", "convserve", "bench", address, *flags],
        stdout=subprocess.PIPE,
        text=True,
    ) as bench:
        loads = [Load(lambda: lasting.classify(digit)), Load(by_a_new_connection)]
        try:
            for _ in range(3):
                before = serial(address, authority)
                mine.replace(authority.server(days=100))
                until(partial(is_shown_no_longer, before, address, authority))
            until(lambda: all(load.calls > 10 or load.failure for load in loads))
        finally:
            for load in loads:
                load.stop()
        measured = json.loads(bench.communicate()[0])
    lasting.close()
    assert [load.failure for load in loads] == [None, None]
    assert (measured["failed"], measured["connections_lost"]) == (0, 0)
    assert server.terminate() == 0
    assert "BEGIN" not in json.dumps(server.log)
