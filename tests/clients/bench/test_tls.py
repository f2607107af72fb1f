"""The load generator's own client over TLS."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from convserve.errors import ServerUnavailable
from convserve.main import main
from convserve.tls import Tls
from convserve_bench.generator import Calls, Generator
from convserve_bench.tally import Tally
from convserve_bench.tls_transport import ServerTls
from convserve_bench.transport import Address
from convserve_protos import classifier_pb2
from tests.certificates import Authority
from tests.clients.bench.test_generator import FIELDS, MESSAGE, settings
from tests.clients.scripted_server import LABELS, ScriptedServer, answer

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def secured(authority: Authority) -> Iterator[ScriptedServer]:
    """A server that requires certificates of its clients."""
    mine = authority.server("classifier.example", "127.0.0.1")
    tls = grpc.ssl_server_credentials(
        [(mine.key.read_bytes(), mine.cert.read_bytes())],
        authority.ca.read_bytes(),
        require_client_auth=True,
    )
    server = ScriptedServer(tls=tls)
    yield server
    server.stop()


def run(
    server: ScriptedServer, tls: Tls, message: bytes = MESSAGE, timeout_s: float = 60.0
) -> tuple[Generator, Tally]:
    host, port = server.address.split(":")
    calls = Calls(
        Address(socket.AF_INET, (host, int(port))),
        FIELDS,
        [message],
        ServerTls(tls.context(), "classifier.example"),
    )
    tally = Tally(1, 10)
    generator = Generator(settings(timeout_s=timeout_s), calls, tally, lambda *_: None)
    generator.run()
    return generator, tally


def mutual(authority: Authority) -> Tls:
    mine = authority.client()
    return Tls(str(authority.ca), str(mine.cert), str(mine.key))


def test_every_call_is_answered(secured: ScriptedServer, authority: Authority) -> None:
    generator, tally = run(secured, mutual(authority))
    assert tally.failures.counts == {}
    assert tally.histogram.count == len(secured.requests) == tally.seen > 0
    assert len(set(secured.peers)) == 2
    assert generator.lost == (0, "")


def test_messages_of_many_records_pass(secured: ScriptedServer, authority: Authority) -> None:
    secured.answer = lambda _: classifier_pb2.ClassifyResponse(
        model="mnist", labels=[*LABELS, "x" * 200_000]
    )
    request = classifier_pb2.ClassifyRequest(model="m" * 300_000).SerializeToString()
    message = b"\0" + len(request).to_bytes(4, "big") + request
    _, tally = run(secured, mutual(authority), message)
    assert len(secured.requests) == tally.seen > 0
    # The answer is wrong, but whole: its size was counted.
    assert set(tally.failures.counts) <= {"WRONG_REPLY"}


@pytest.mark.parametrize(
    ("which", "words"),
    [
        ("another authority", "TLS: unable to get local issuer certificate"),
        ("no certificate", "closed it"),
    ],
)
def test_connection_that_is_not_agreed_says_why(
    secured: ScriptedServer, authority: Authority, tmp_path: Path, which: str, words: str
) -> None:
    other = Authority(tmp_path, "other")
    tls = mutual(other) if which == "another authority" else Tls(str(authority.ca))
    with pytest.raises(ServerUnavailable, match=words):
        run(secured, tls, timeout_s=2.0)
    assert not secured.requests


def test_command_speaks_tls_and_sends_the_key(
    secured: ScriptedServer, authority: Authority, tmp_path: Path, capsys: Capture
) -> None:
    mine = authority.client()
    key = tmp_path / "key"
    key.write_text("SECRET")
    lock = threading.Lock()
    images: set[bytes] = set()

    def note(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        with lock:
            images.add(request.pixels.data)
        return answer(request)

    secured.answer = note
    flags = [
        *("--tls-ca", str(authority.ca), "--tls-cert", str(mine.cert), "--tls-key", str(mine.key)),
        *("--key-file", str(key), "--seconds", "0.3", "--warm-up", "0.1", "--callers", "4"),
    ]
    assert main(["bench", secured.address, *flags, "--format", "json"]) == 0
    printed = capsys.readouterr()
    assert "SECRET" not in printed.out + printed.err
    assert {each["authorization"] for each in secured.metadata} == {"Bearer SECRET"}
    assert images
