"""The native front behind guards, as whole servers: TLS, renewal, restarts, drain, memory."""

import contextlib
import hashlib
import os
import signal
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from benchmarks.harness.http2_frames import call_fields, message
from benchmarks.harness.raw_http2 import RawConnection
from convserve_protos.classifier_pb2_grpc import ClassifierStub
from tests.certificates import Authority, Issued
from tests.system.conftest import WAIT_S, ServerProcess, StartServer
from tests.system.test_serving import answer, request_for

MIB = 2**20
#: Guards without TLS, on a port that nobody else reaches.
PLAIN = ("--front", "native", "--max-connection-age-s", "3600")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def files(tmp_path: Path, authority: Authority) -> Issued:
    """Where the server has its certificate and key."""
    files = Issued(tmp_path / "server.pem", tmp_path / "server.key")
    renew(files, authority.server())
    return files


def renew(files: Issued, issued: Issued) -> None:
    """Exchange both files, each by rename."""
    for new, old in ((issued.key, files.key), (issued.cert, files.cert)):
        beside = old.with_suffix(".new")
        beside.write_bytes(new.read_bytes())
        beside.rename(old)


def flags(files: Issued) -> list[str]:
    return ["--front", "native", "--tls-cert", str(files.cert), "--tls-key", str(files.key)]


def pids(server: ServerProcess, module: str) -> list[int]:
    """The processes of a server that run a module."""
    return [
        pid
        for pid in server.worker_pids()
        if f"process.{module}".encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


@contextlib.contextmanager
def channel_to(address: str, authority: Authority) -> Iterator[grpc.Channel]:
    credentials = grpc.ssl_channel_credentials(authority.ca.read_bytes())
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(address, credentials, options) as channel:
        yield channel


class Load:
    """Callers over TLS, each on a connection of its own, of plain gRPC without a policy of retries.

    Args:
        address: of the server.
        authority: that is trusted.
    """

    CALLERS = 4

    def __init__(self, address: str, authority: Authority) -> None:
        self.outcomes: Counter[str] = Counter()
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._run, args=(address, authority))
            for _ in range(self.CALLERS)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, address: str, authority: Authority) -> None:
        with channel_to(address, authority) as channel:
            stub = ClassifierStub(channel)
            while not self._stop.is_set():
                try:
                    got = answer(stub.Classify(request_for(7), timeout=WAIT_S, wait_for_ready=True))
                    outcome = "right" if got == 7 else "wrong"
                except grpc.RpcError as error:
                    outcome = f"{error.code().name}: {error.details()}"
                with self._changed:
                    self.outcomes[outcome] += 1
                    self._changed.notify_all()

    def wait_for_more(self, count: int = 200) -> None:
        """Wait until so many more calls have ended."""
        with self._changed:
            before = self.outcomes.total()
            assert self._changed.wait_for(lambda: self.outcomes.total() >= before + count, WAIT_S)

    def stop(self) -> "Counter[str]":
        """Make no more calls; returns how all have ended."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.outcomes


def shown_by(address: str) -> str:
    """The digest of the certificate that a server shows."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, _, port = address.partition(":")
    with (
        socket.create_connection((host, int(port)), WAIT_S) as raw,
        context.wrap_socket(raw) as client,
    ):
        return hashlib.sha256(client.getpeercert(binary_form=True) or b"").hexdigest()


def test_certificate_is_renewed_under_load_without_a_failed_call(
    start_server: StartServer, authority: Authority, files: Issued
) -> None:
    server = start_server(*flags(files), "--workers", "2")
    address = server.wait_until_serving()
    load = Load(address, authority)
    load.wait_for_more()
    before = shown_by(address)
    renew(files, authority.server())
    while (after := shown_by(address)) == before:
        load.wait_for_more(20)
    files.cert.write_text("no certificate")
    server.wait_for("what was read before holds")
    load.wait_for_more()
    assert shown_by(address) == after
    assert set(load.stop()) == {"right"}


def test_rolling_restart_behind_guards_fails_no_call(
    start_server: StartServer, authority: Authority, files: Issued, tmp_path: Path
) -> None:
    settings = tmp_path / "convserve.toml"
    settings.write_text("[batching]\nmax_queue = 100\n")
    server = start_server(*flags(files), "--workers", "2", "--config", str(settings))
    address = server.wait_until_serving()
    before = {*pids(server, "worker"), *pids(server, "guard")}
    assert len(before) == 3
    load = Load(address, authority)
    load.wait_for_more()
    settings.write_text("[batching]\nmax_queue = 200\n")
    server.process.send_signal(signal.SIGHUP)
    for _ in before:
        server.wait_for("is replaced")
    while before & set(server.worker_pids()):
        load.wait_for_more(20)
    load.wait_for_more()
    assert set(load.stop()) == {"right"}
    assert server.terminate() == 0


def test_sigterm_answers_calls_in_flight(
    start_server: StartServer, authority: Authority, files: Issued
) -> None:
    server = start_server(*flags(files), "--workers", "1")
    address = server.wait_until_serving()
    with channel_to(address, authority) as channel:
        stub = ClassifierStub(channel)
        assert answer(stub.Classify(request_for(1), timeout=WAIT_S)) == 1
        futures = [stub.Classify.future(request_for(2), timeout=WAIT_S) for _ in range(200)]
        assert answer(futures[0].result()) == 2
        assert server.terminate() == 0
        ended = Counter(future.code() for future in futures)
    assert set(ended) <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert not any("connections were aborted" in entry["message"] for entry in server.log)


@pytest.mark.parametrize("module", ["worker", "guard"])
def test_process_that_is_killed_is_back(
    start_server: StartServer, authority: Authority, files: Issued, module: str
) -> None:
    server = start_server(*flags(files), "--workers", "1")
    address = server.wait_until_serving()
    (pid,) = pids(server, module)
    with channel_to(address, authority) as channel:
        stub = ClassifierStub(channel)
        assert answer(stub.Classify(request_for(1), timeout=WAIT_S)) == 1
        os.kill(pid, signal.SIGKILL)
        server.wait_for(f"{module} 1 ended")
        got = None
        while got is None:
            # It may be sent before the client sees that the connection has ended.
            with contextlib.suppress(grpc.RpcError):
                got = answer(stub.Classify(request_for(3), timeout=WAIT_S, wait_for_ready=True))
        assert got == 3
    assert pids(server, module) != [pid]
    assert server.terminate() == 0


def resident(pid: int) -> int:
    """Memory of a process that it shares with no file, bytes."""
    fields = Path(f"/proc/{pid}/status").read_text().split("RssAnon:")[1].split()
    return int(fields[0]) * 1024


def test_unfinished_requests_take_no_more_memory_than_is_set(start_server: StartServer) -> None:
    most = 32 * MIB
    server = start_server(
        *PLAIN, "--workers", "1",
        "--max-message-bytes", str(8 * MIB), "--max-received-bytes", str(most),
    )  # fmt: skip
    address = server.wait_until_serving()
    (worker,), (guard,) = pids(server, "worker"), pids(server, "guard")
    with grpc.insecure_channel(address) as channel:
        stub = ClassifierStub(channel)
        assert answer(stub.Classify(request_for(1), timeout=WAIT_S)) == 1
        before = resident(worker), resident(guard)
        part = message(bytes(7 * MIB), size=8 * MIB)
        with contextlib.ExitStack() as stack:
            for _ in range(12):
                raw = stack.enter_context(RawConnection(address))
                stream = raw.new_stream()
                raw.send(raw.headers(call_fields("/convserve.v1.Classifier/Classify"), stream))
                raw.data(part, stream)
                assert answer(stub.Classify(request_for(1), timeout=WAIT_S)) == 1
            grown = resident(worker) - before[0], resident(guard) - before[1]
    # The worker has a message twice while its buffer grows.
    assert grown[0] < 2 * most + 16 * MIB, grown
    assert grown[1] < 32 * MIB, grown
    assert server.terminate() == 0


def test_reload_that_would_have_guards_where_there_are_none_changes_nothing_and_says_so(
    start_server: StartServer, files: Issued, tmp_path: Path
) -> None:
    settings = tmp_path / "convserve.toml"
    settings.write_text("")
    server = start_server("--front", "native", "--workers", "1", "--config", str(settings))
    server.wait_until_serving()
    settings.write_text(f'[security]\ntls_cert = "{files.cert}"\ntls_key = "{files.key}"\n')
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("unchanged until the server is started again: tls_cert, tls_key")
    settings.write_text("max_connection_age_s = 60\n")
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("the settings stay as they are: max_connection_age_s: expected")
    assert pids(server, "guard") == []
