"""A guard before a real worker: who calls, TLS, and what it keeps from the worker."""

import contextlib
import gzip
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import grpc
import pytest

from benchmarks.harness.http2_frames import Flag, Kind, call_fields, frame, message
from benchmarks.harness.raw_http2 import RawConnection
from convserve_protos.classifier_pb2_grpc import ClassifierStub
from convserve_server.host.port import reserve_port
from convserve_server.protocols.base import Caller, Interceptor, StreamHandler, UnaryHandler
from convserve_server.security.tls import TlsFiles, server_context
from convserve_server.telemetry.totals import Totals
from tests.certificates import CLIENT, Authority, Issued
from tests.server.conftest import WAIT_S, Serve, Served, answers, request_for
from tests.server.outcomes import GOOD, is_served, outcome, send_call
from tests.server.transports.test_conformance import CLASSIFY, until

Clients = Literal["required", "optional"]
FIELDS = call_fields(CLASSIFY)


class Callers(Interceptor):
    """Notes who calls."""

    def __init__(self) -> None:
        self.seen: list[Caller] = []

    def unary(self, method: str, handler: UnaryHandler) -> UnaryHandler:
        def noting(call):  # type: ignore[no-untyped-def]
            self.seen.append(call.caller())
            handler(call)

        return noting

    def stream(self, method: str, handler: StreamHandler) -> StreamHandler:
        async def noting(stream):  # type: ignore[no-untyped-def]
            self.seen.append(stream.caller())
            await handler(stream)

        return noting


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("others"), "other")


def use_tls(
    served: Served, server: Issued, client_ca: Path | None, clients: Clients = "required"
) -> None:
    """From now on clients of a guard have to speak TLS."""
    files = TlsFiles(cert=server.cert, key=server.key, client_ca=client_ca, clients=clients)
    assert served.guard is not None
    served.guard.guard.context = server_context(files, ["h2"])


@contextlib.contextmanager
def connected(
    served: Served, ca: Path, client: Issued | None = None, name: str = "localhost"
) -> Iterator[grpc.Channel]:
    credentials = grpc.ssl_channel_credentials(
        ca.read_bytes(),
        client.key.read_bytes() if client else None,
        client.cert.read_bytes() if client else None,
    )
    options = [("grpc.ssl_target_name_override", name), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(served.address, credentials, options) as channel:
        yield channel


def ask(channel: grpc.Channel, class_: int = 4) -> list[int]:
    return answers(ClassifierStub(channel).Classify(request_for(class_), timeout=WAIT_S))


def ask_on_a_stream(channel: grpc.Channel) -> None:
    """Have one stream begun and ended."""
    assert list(ClassifierStub(channel).StreamClassify(iter([]), timeout=WAIT_S)) == []


def test_caller_is_the_client_and_not_the_guard(serve: Serve) -> None:
    callers = Callers()
    served = serve("guarded", interceptors=[callers])
    forged = (("guard-0", "ipv4:192.0.2.1:1 admin"), ("mine", "yes"))
    stub = ClassifierStub(served.channel)
    stub.Classify(request_for(1), timeout=WAIT_S, metadata=forged)
    list(stub.StreamClassify(iter([]), timeout=WAIT_S, metadata=forged))
    for caller in callers.seen:
        assert caller.peer.startswith("ipv4:127.0.0.1:")
        assert caller.identity == ""
        assert dict(caller.metadata)["mine"] == "yes"
        assert [key for key, _ in caller.metadata if key.startswith("guard-")] == ["guard-0"]
    assert len(callers.seen) == 2
    assert callers.seen[0].peer == callers.seen[1].peer


def test_call_past_the_guard_is_refused(serve: Serve) -> None:
    served = serve("guarded")
    assert served.guard is not None
    with grpc.insecure_channel(f"127.0.0.1:{served.guard.guard.ports[0]}") as channel:
        for call in (ask, ask_on_a_stream):
            with pytest.raises(grpc.RpcError) as raised:
                call(channel)
            assert raised.value.code() == grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("clients", ["required", "optional"])
def test_certificate_of_a_client_names_the_caller_of_calls_and_streams(
    serve: Serve, authority: Authority, clients: Clients
) -> None:
    callers = Callers()
    served = serve("guarded", interceptors=[callers])
    use_tls(served, authority.server(), authority.ca, clients)
    with connected(served, authority.ca, authority.client()) as channel:
        assert ask(channel) == [4]
        ask_on_a_stream(channel)
    assert [caller.identity for caller in callers.seen] == [CLIENT, CLIENT]


@pytest.mark.parametrize(
    ("client", "clients", "served_"),
    [
        pytest.param("none", "required", False, id="none"),
        pytest.param("none", "optional", True, id="none, which may be"),
        pytest.param("expired", "required", False, id="expired"),
        pytest.param("other", "required", False, id="of another authority"),
        pytest.param("other", "optional", False, id="of another authority, needs none"),
    ],
)  # fmt: skip
def test_client_has_to_show_a_certificate_of_the_authority(
    serve: Serve,
    authority: Authority,
    other: Authority,
    client: str,
    clients: Clients,
    served_: bool,
) -> None:
    served = serve("guarded")
    use_tls(served, authority.server(), authority.ca, clients)
    shown = {"none": None, "expired": authority.client(days=-1), "other": other.client()}[client]
    with connected(served, authority.ca, shown) as channel:
        if served_:
            assert ask(channel) == [4]
            return
        with pytest.raises(grpc.RpcError) as raised:
            ask(channel)
        assert raised.value.code() == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("wrong", ["expired", "name", "authority", "plain"])
def test_client_that_finds_something_wrong_does_not_call(
    serve: Serve, authority: Authority, other: Authority, wrong: str
) -> None:
    served = serve("guarded")
    use_tls(served, authority.server(days=-1 if wrong == "expired" else 1), None)
    ca = other.ca if wrong == "authority" else authority.ca
    name = "elsewhere.test" if wrong == "name" else "localhost"
    channel = served.channel if wrong == "plain" else None
    with contextlib.ExitStack() as stack:
        channel = channel or stack.enter_context(connected(served, ca, name=name))
        with pytest.raises(grpc.RpcError) as raised:
            ask(channel)
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
    assert served.guard is not None
    use_tls(served, authority.server(), None)
    with connected(served, authority.ca) as good:
        assert ask(good) == [4]


def test_client_that_speaks_another_protocol_is_ended(serve: Serve, authority: Authority) -> None:
    served = serve("guarded")
    use_tls(served, authority.server(), None)
    context = ssl.create_default_context(cafile=str(authority.ca))
    context.set_alpn_protocols(["http/1.1"])
    host, _, port = served.address.partition(":")
    with (
        socket.create_connection((host, int(port)), WAIT_S) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as client,
    ):
        assert client.version() == "TLSv1.3"
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert client.recv(100) == b""


def test_certificate_that_is_exchanged_is_shown_to_new_clients_and_fails_no_call(
    serve: Serve, authority: Authority, other: Authority
) -> None:
    served = serve("guarded")
    use_tls(served, authority.server(), None)
    with connected(served, authority.ca) as before:
        assert ask(before) == [4]
        use_tls(served, other.server(), None)
        assert ask(before) == [4]
        with connected(served, other.ca) as after:
            assert ask(after) == [4]


def counted(served: Served) -> Totals:
    assert served.guard is not None
    return served.guard.counted.totals


def held(served: Served) -> int:
    assert served.guard is not None
    return served.guard.guard.memory.held


@pytest.mark.parametrize(
    "size", [pytest.param(4097, id="a byte more"), pytest.param(2**32 - 1, id="4 GiB")]
)
def test_size_that_is_only_claimed_is_refused_at_once(serve: Serve, size: int) -> None:
    served = serve("guarded", max_message_bytes=4096)
    with RawConnection(served.address) as raw:
        stream = raw.new_stream()
        raw.send(raw.headers(FIELDS, stream))
        raw.data(message(b"", size=size), stream)
        assert outcome(raw, stream, "RESOURCE_EXHAUSTED") == "RESOURCE_EXHAUSTED"
        assert is_served(raw)
    totals = counted(served)
    assert totals.refused() == {"MESSAGE_TOO_LARGE": 1}
    ((key, times),) = totals.calls().items()
    assert (key, times.count) == (("(other)", "", "", "RESOURCE_EXHAUSTED"), 1)


def test_bomb_is_refused_before_the_worker_has_all_of_it(serve: Serve) -> None:
    served = serve("guarded")
    fields = [*FIELDS, ("grpc-encoding", "gzip")]
    with RawConnection(served.address) as raw:
        bomb = message(gzip.compress(bytes(2**28)), compressed=True)
        for _ in range(3):
            stream = send_call(raw, fields, bomb)
            assert outcome(raw, stream, "RESOURCE_EXHAUSTED") == "RESOURCE_EXHAUSTED"
        stream = send_call(raw, fields, message(gzip.compress(GOOD), compressed=True))
        assert outcome(raw, stream, "OK") == "OK"


def test_unfinished_requests_of_many_connections_are_bounded_and_others_are_served(
    serve: Serve,
) -> None:
    most = 400_000
    served = serve(
        "guarded", max_message_bytes=100_000, max_received_bytes=most, max_connection_bytes=200_000
    )
    part = message(bytes(60_000), size=90_000)
    with contextlib.ExitStack() as stack:
        attackers = [stack.enter_context(RawConnection(served.address)) for _ in range(4)]
        asked = [(raw, raw.new_stream()) for raw in attackers for _ in range(4)]
        for raw, stream in asked:
            raw.send(raw.headers(FIELDS, stream))
            raw.data(part, stream)
            assert answers(served.classify(request_for(3)).result()) == [3]
            assert held(served) <= most

        def statuses() -> list[int | None]:
            return [raw.answers[stream].status for raw, stream in asked]

        until(lambda: statuses().count(8) >= 9)
        over = statuses()
        assert over.count(None) == len(over) - over.count(8) >= 4
    with RawConnection(served.address) as raw:
        assert is_served(raw)


def test_connections_over_the_limit_are_closed_and_the_others_served(serve: Serve) -> None:
    served = serve("guarded", max_connections=3)
    host, _, port = served.address.partition(":")
    with contextlib.ExitStack() as stack:
        raws = [stack.enter_context(RawConnection(served.address)) for _ in range(3)]
        with socket.create_connection((host, int(port)), WAIT_S) as more:
            assert more.recv(1) == b""
        assert all(map(is_served, raws))
    assert counted(served).refused_connections() == 1


def test_connection_that_is_old_is_renewed_and_no_call_fails(serve: Serve) -> None:
    callers = Callers()
    served = serve("guarded", interceptors=[callers], max_connection_age_s=0.1)
    while len({caller.peer for caller in callers.seen}) < 2:
        assert ask(served.channel) == [4]


def test_port_can_be_used_again_at_once_after_connections_that_ended_here(serve: Serve) -> None:
    """What closes a connection keeps its address for a minute (TIME_WAIT)."""
    served = serve("guarded", max_connections=1)
    host, _, port = served.address.partition(":")
    with RawConnection(served.address) as raw:
        assert is_served(raw)
        with socket.create_connection((host, int(port)), WAIT_S) as refused:
            assert refused.recv(1) == b""
    assert served.guard is not None
    guard = served.guard.guard
    served.guard.call(guard.set_workers, [])
    until(lambda: not guard.listens)
    reserve_port(host, int(port)).close()


def test_worker_that_leaves_has_its_calls_answered_and_its_clients_go_elsewhere(
    serve: Serve,
) -> None:
    served = serve("guarded")
    assert served.guard is not None
    guard = served.guard.guard
    served.engine.hold()
    with RawConnection(served.address) as raw:
        stream = send_call(raw, FIELDS)
        served.engine.wait_entered()
        served.guard.call(guard.set_workers, [guard.ports[0] + 1])
        raw.wait(lambda: len(raw.goaways) == 1)
        assert raw.goaways[0] == (2**31 - 1, 0)
        served.engine.release()
        assert raw.answer(stream).status == 0
        raw.wait(lambda: raw.closed)


def test_client_that_says_nothing_more_is_left_alone(serve: Serve) -> None:
    """A frame that is not whole holds nobody up."""
    served = serve("guarded")
    with RawConnection(served.address) as raw, RawConnection(served.address) as other_:
        raw.send(frame(Kind.DATA, Flag.NONE, 1, bytes(100))[:20])
        assert is_served(other_)
