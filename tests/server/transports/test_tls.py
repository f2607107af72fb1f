"""TLS and mutual TLS of every port, over real connections."""

import http.client
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from convserve_protos import classifier_pb2 as pb
from convserve_protos.classifier_pb2_grpc import ClassifierStub
from convserve_server.protocols.convserve_v1.service import CLASSIFY
from tests.certificates import CLIENT, Authority, Issued
from tests.server.conftest import WAIT_S, CallWatch, Serve, Served, answers, request_for
from tests.server.http_client import PNG
from tests.server.transports.test_conformance import until

#: The fronts that serve TLS.
TLS_FRONTS = ["grpcio"]

URL = "/v1/models/mnist:classify?top_k=1"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture(params=TLS_FRONTS)
def front(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def settings(
    server: Issued, clients: Authority | None = None, which: str = "required"
) -> dict[str, Any]:
    found: dict[str, Any] = {"tls_cert": str(server.cert), "tls_key": str(server.key)}
    if clients is not None:
        found |= {"tls_client_ca": str(clients.ca), "tls_clients": which}
    return found


def credentials(authority: Authority, client: Issued | None = None) -> grpc.ChannelCredentials:
    mine = (client.key.read_bytes(), client.cert.read_bytes()) if client else (None, None)
    return grpc.ssl_channel_credentials(authority.ca.read_bytes(), *mine)


def classified(served: Served, authority: Authority, client: Issued | None = None) -> list[int]:
    """What a new connection to the front is answered."""
    # Channels of one process share connections of equal settings.
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(served.address, credentials(authority, client), options) as channel:
        return answers(ClassifierStub(channel).Classify(request_for(7), timeout=WAIT_S))


def context(authority: Authority, client: Issued | None = None) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=authority.ca)
    if client is not None:
        made.load_cert_chain(client.cert, client.key)
    return made


def posted(served: Served, tls: ssl.SSLContext) -> int:
    """The status that a new connection to the HTTP port is answered with."""
    connection = http.client.HTTPSConnection(
        "localhost", served.http_port, timeout=WAIT_S, context=tls
    )
    try:
        connection.request("POST", URL, PNG)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def test_calls_over_tls_are_answered_on_both_ports(
    serve: Serve, front: str, authority: Authority
) -> None:
    served = serve(front, http=True, **settings(authority.server()))
    assert classified(served, authority) == [7]
    assert posted(served, context(authority)) == 200


@pytest.mark.parametrize(
    ("names", "identity"),
    [
        (("spiffe://cluster/ns/shop", "shop.example"), "spiffe://cluster/ns/shop"),
        (("a@b.example", "shop.example"), "shop.example"),
        (("a@b.example",), "a@b.example"),
    ],
)
def test_certificate_of_the_client_names_the_caller_on_every_port(
    serve: Serve, front: str, authority: Authority, names: tuple[str, ...], identity: str
) -> None:
    seen: list[str] = []
    watch = CallWatch(CLASSIFY, lambda call: seen.append(call.caller().identity))
    served = serve(
        front, http=True, interceptors=[watch], **settings(authority.server(), authority)
    )
    issue = authority.issue_uri if "://" in names[0] else authority.issue
    client = issue(*names)
    assert classified(served, authority, client) == [7]
    assert posted(served, context(authority, client)) == 200
    assert seen == [identity] * 2


def test_streams_have_the_identity_too(serve: Serve, front: str, authority: Authority) -> None:
    seen: list[str] = []
    watch = CallWatch(CLASSIFY, lambda call: seen.append(call.caller().identity))
    served = serve(front, interceptors=[watch], **settings(authority.server(), authority))
    mine = credentials(authority, authority.client())
    with grpc.secure_channel(served.address, mine) as channel:
        message = pb.StreamClassifyRequest(request=request_for(3))
        replies = list(ClassifierStub(channel).StreamClassify(iter([message]), timeout=WAIT_S))
    assert answers(replies[0].response) == [3]
    assert seen == [CLIENT]


@pytest.mark.parametrize("shown", ["none", "expired", "another authority's"])
def test_client_without_a_valid_certificate_is_refused_on_every_port(
    serve: Serve, front: str, authority: Authority, tmp_path: Path, shown: str
) -> None:
    served = serve(front, http=True, **settings(authority.server(), authority))
    client = {
        "none": None,
        "expired": authority.client(days=-1),
        "another authority's": Authority(tmp_path, "other").client(),
    }[shown]
    with pytest.raises(grpc.RpcError) as caught:
        classified(served, authority, client)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    # By TLS 1.3 a client learns of it with the first answer only.
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
        posted(served, context(authority, client))
    assert served.worker.answered() == 0


def test_optional_certificate_may_be_missing_on_the_http_port(
    serve: Serve, authority: Authority
) -> None:
    seen: list[str] = []
    watch = CallWatch(CLASSIFY, lambda call: seen.append(call.caller().identity))
    tls = settings(authority.server(), authority, "optional")
    served = serve("grpcio", http=True, interceptors=[watch], **tls)
    assert posted(served, context(authority)) == 200
    assert posted(served, context(authority, authority.client())) == 200
    assert seen == ["", CLIENT]


@pytest.mark.parametrize("old", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_before_1_2_is_refused(
    serve: Serve, front: str, authority: Authority, old: ssl.TLSVersion
) -> None:
    served = serve(front, http=True, **settings(authority.server()))
    tls = context(authority)
    tls.set_ciphers("DEFAULT:@SECLEVEL=0")
    tls.minimum_version = tls.maximum_version = old
    for port in (int(served.address.rpartition(":")[2]), served.http_port):
        with (
            socket.create_connection(("localhost", port), WAIT_S) as plain,
            pytest.raises((ssl.SSLError, ConnectionError)),
        ):
            tls.wrap_socket(plain, server_hostname="localhost")


def test_plain_text_on_a_port_of_tls_is_closed_and_harms_nobody(
    serve: Serve, front: str, authority: Authority
) -> None:
    served = serve(front, http=True, **settings(authority.server()))
    for port in (int(served.address.rpartition(":")[2]), served.http_port):
        with socket.create_connection(("localhost", port), WAIT_S) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
            received = b"".join(iter(lambda: _received(plain), b""))
        if port == served.http_port:
            assert received.startswith(b"HTTP/1.1 400 ")
            assert received.endswith(b"\r\n\r\nthis port speaks TLS: use https://\n")
        else:
            assert b"HTTP" not in received
    assert classified(served, authority) == [7]
    assert posted(served, context(authority)) == 200


def _received(plain: socket.socket) -> bytes:
    try:
        return plain.recv(4096)
    except ConnectionResetError:
        return b""


def shown_to(port: int, authority: Authority) -> dict[str, Any]:
    """The certificate that a new connection is shown."""
    with (
        socket.create_connection(("localhost", port), WAIT_S) as plain,
        context(authority).wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        return secured.getpeercert() or {}


def test_renewed_certificate_is_shown_to_new_connections_and_old_ones_go_on(
    serve: Serve, front: str, authority: Authority
) -> None:
    mine = authority.server()
    served = serve(front, http=True, **settings(mine))
    port = int(served.address.rpartition(":")[2])

    def serials() -> list[str]:
        return [shown_to(each, authority)["serialNumber"] for each in (port, served.http_port)]

    before = serials()
    web = http.client.HTTPSConnection(
        "localhost", served.http_port, timeout=WAIT_S, context=context(authority)
    )
    with grpc.secure_channel(served.address, credentials(authority)) as channel:
        stub = ClassifierStub(channel)
        assert answers(stub.Classify(request_for(7), timeout=WAIT_S)) == [7]
        web.request("GET", "/v1/models")
        assert web.getresponse().read()
        mine.replace(authority.server())
        until(lambda: not {*serials()} & {*before})
        assert answers(stub.Classify(request_for(3), timeout=WAIT_S)) == [3]
        web.request("GET", "/v1/models")
        assert web.getresponse().read()
    web.close()


def test_authority_that_is_removed_is_trusted_no_longer(
    serve: Serve, front: str, authority: Authority, tmp_path: Path
) -> None:
    clients, others = Authority(tmp_path, "clients"), Authority(tmp_path, "others")
    served = serve(front, http=True, **settings(authority.server(), clients))
    old, new = clients.client(), others.client()
    assert classified(served, authority, old) == [7]
    clients.ca.write_bytes(others.ca.read_bytes())
    until(lambda: _is_served(lambda: posted(served, context(authority, new))))
    until(lambda: _is_served(lambda: classified(served, authority, new)))
    assert not _is_served(lambda: posted(served, context(authority, old)))
    assert not _is_served(lambda: classified(served, authority, old))


def _is_served(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected, grpc.RpcError):
        return False
    return True


def test_files_that_cannot_be_used_leave_the_certificate_as_it_is(
    serve: Serve, front: str, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    mine = authority.server()
    served = serve(front, http=True, **settings(mine))
    mine.cert.write_text("not a certificate")
    until(lambda: caplog.text.count("what was read before holds") == 2)
    assert str(mine.cert) in caplog.text
    assert "PRIVATE" not in caplog.text
    assert classified(served, authority) == [7]
    assert posted(served, context(authority)) == 200


def test_answer_before_the_body_was_read_arrives_and_the_connection_ends(
    serve: Serve, authority: Authority
) -> None:
    served = serve("grpcio", http=True, **settings(authority.server()))
    with (
        socket.create_connection(("localhost", served.http_port), WAIT_S) as plain,
        context(authority).wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        length = 2**30
        secured.sendall(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\nxx" % length)
        received = b"".join(iter(lambda: secured.recv(4096), b""))
    assert received.startswith(b"HTTP/1.1 413 ")


def test_page_of_the_server_itself_may_call_over_https(serve: Serve, authority: Authority) -> None:
    served = serve("grpcio", http=True, **settings(authority.server()))
    web = http.client.HTTPSConnection(
        "localhost", served.http_port, timeout=WAIT_S, context=context(authority)
    )
    for origin, status in ((f"https://localhost:{served.http_port}", 200), ("https://evil", 403)):
        web.request("POST", URL, PNG, {"origin": origin})
        answer = web.getresponse()
        assert (answer.status, bool(answer.read())) == (status, True)
    web.close()


def test_connections_that_do_not_begin_tls_are_closed(
    serve: Serve, front: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convserve_server.transports.http.HEAD_S", 0.2)
    monkeypatch.setattr("convserve_server.transports.grpcio.HANDSHAKE_S", 0.2)
    served = serve(front, http=True, **settings(authority.server()))
    for port in (int(served.address.rpartition(":")[2]), served.http_port):
        for sent in (b"", b"\x16\x03\x01"):
            with socket.create_connection(("localhost", port), WAIT_S) as plain:
                plain.sendall(sent)
                assert _received(plain) == b""
    # A client that is slow to agree, on a busy machine, is closed as well.
    until(lambda: _is_served(lambda: posted(served, context(authority))))


def test_connections_that_do_not_begin_tls_are_bounded_with_the_others(
    serve: Serve, authority: Authority
) -> None:
    served = serve("grpcio", http=True, http_max_connections=3, **settings(authority.server()))
    silent = [socket.create_connection(("localhost", served.http_port), WAIT_S) for _ in range(3)]
    with socket.create_connection(("localhost", served.http_port), WAIT_S) as fourth:
        assert _received(fourth) == b""
    for each in silent:
        each.close()
    until(lambda: _is_served(lambda: posted(served, context(authority))))


def test_connection_in_its_handshake_holds_up_no_stop(serve: Serve, authority: Authority) -> None:
    served = serve("grpcio", http=True, **settings(authority.server()))
    with socket.create_connection(("localhost", served.http_port), WAIT_S) as silent:
        assert posted(served, context(authority)) == 200
        assert served.worker.stop() == 0
        assert _received(silent) == b""
        assert not _is_served(lambda: posted(served, context(authority)))
