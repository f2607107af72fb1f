"""Connections that break HTTP/2's rules, or keep them too often, on every front.

Whatever becomes of such a connection, another one must be served.
"""

import contextlib
import socket
import struct
from collections.abc import Callable

import pytest

from benchmarks.harness.http2_frames import (
    MOST_WINDOW,
    PREFACE,
    Code,
    Flag,
    Kind,
    Setting,
    call_fields,
    frame,
    open_window,
    reset,
    settings_frame,
)
from benchmarks.harness.raw_http2 import RawConnection
from tests.server.conftest import WAIT_S, Serve, answers, request_for
from tests.server.outcomes import GOOD, is_served, outcome
from tests.server.transports.test_conformance import CLASSIFY

FIELDS = call_fields(CLASSIFY)
IGNORED, ENDED = "ignored", "ended"


def fate(raw: RawConnection) -> str:
    """What became of a connection after a mistake on it."""
    return IGNORED if is_served(raw) else ENDED


def send_all(raw: RawConnection, *parts: bytes) -> None:
    """Send as much as the server reads."""
    with contextlib.suppress(OSError):
        for part in parts:
            raw.send(part)


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        pytest.param(frame(77, 0xFF, 1, b"abc"), IGNORED, id="unknown kind of frame"),
        pytest.param(open_window(0, 0), ENDED, id="window opened by nothing"),
        pytest.param(frame(Kind.PING, payload=b"abc"), ENDED, id="short ping"),
        pytest.param(frame(Kind.SETTINGS, payload=b"abc"), ENDED, id="half a setting"),
        pytest.param(frame(Kind.HEADERS, 5, 1, b"\xff" * 20), ENDED, id="no HPACK"),
        pytest.param(frame(Kind.DATA, 0, 1, bytes(2**23)), ENDED, id="frame of 8 MiB"),
    ],
)
def test_mistake_is_taken_alike(serve: Serve, front: str, mistake: bytes, expected: str) -> None:
    served = serve(front, lame_duck_s=0.0)
    with RawConnection(served.address) as raw:
        send_all(raw, mistake)
        assert fate(raw) == expected
    assert answers(served.classify(request_for(3)).result()) == [3]


@pytest.mark.parametrize(
    "mistake",
    [
        pytest.param(lambda raw: raw.headers(FIELDS, 2, end=True), id="even stream"),
        pytest.param(lambda raw: raw.headers(FIELDS, 0, end=True), id="headers of no stream"),
        pytest.param(lambda _: frame(Kind.DATA, 0, 9, b"abc"), id="data before headers"),
        pytest.param(lambda _: open_window(0, MOST_WINDOW) * 2, id="window over the most"),
        pytest.param(lambda _: frame(Kind.PUSH_PROMISE, 4, 1, bytes(4)), id="push of a client"),
    ],
)
def test_mistake_is_ignored_by_grpcio_and_ends_the_connection_on_native(
    serve: Serve, front: str, mistake: Callable[[RawConnection], bytes]
) -> None:
    served = serve(front, lame_duck_s=0.0)
    with RawConnection(served.address) as raw:
        send_all(raw, mistake(raw))
        assert fate(raw) == {"grpcio": IGNORED, "native": ENDED}[front]
    assert answers(served.classify(request_for(3)).result()) == [3]


def test_data_after_the_end_does_not_hurt_the_next_call(serve: Serve, front: str) -> None:
    with RawConnection(serve(front, lame_duck_s=0.0).address) as raw:
        stream = raw.ask(GOOD, CLASSIFY)
        assert outcome(raw, stream, "OK") == "OK"
        raw.send(frame(Kind.DATA, 0, stream, b"abc"))
        assert is_served(raw)


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", id="HTTP/1.1"),
        pytest.param(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(200), id="TLS"),
        pytest.param(bytes(300), id="zeros"),
    ],
)
def test_what_is_no_http2_is_hung_up_on(serve: Serve, front: str, garbage: bytes) -> None:
    host, port = serve(front, lame_duck_s=0.0).address.split(":")
    with socket.create_connection((host, int(port)), WAIT_S) as plain:
        plain.sendall(garbage)
        with contextlib.suppress(ConnectionResetError):
            while plain.recv(4096):
                pass


def test_silent_connections_keep_nobody_waiting(serve: Serve, front: str) -> None:
    served = serve(front, lame_duck_s=0.0)
    host, port = served.address.split(":")
    with contextlib.ExitStack() as stack:
        for number in range(200):
            silent = stack.enter_context(socket.create_connection((host, int(port)), WAIT_S))
            silent.sendall(PREFACE[: number % len(PREFACE)])
        assert answers(served.classify(request_for(3)).result()) == [3]


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(frame(Kind.PING, payload=bytes(8)), id="pings"),
        pytest.param(settings_frame({Setting.INITIAL_WINDOW_SIZE: 70_000}), id="settings"),
        pytest.param(
            frame(Kind.PRIORITY, 0, 1, struct.pack(">IB", 0, 1)), id="priorities"
        ),
    ],
)  # fmt: skip
def test_flood_of_small_frames_holds_up_nobody(serve: Serve, front: str, flood: bytes) -> None:
    served = serve(front, lame_duck_s=0.0)
    with RawConnection(served.address) as raw:
        send_all(raw, *[flood * 100] * 100)
        assert answers(served.classify(request_for(3)).result()) == [3]


def test_pings_are_answered_and_grpcio_objects_to_many(serve: Serve, front: str) -> None:
    with RawConnection(serve(front, lame_duck_s=0.0).address) as raw:
        raw.send(frame(Kind.PING, payload=bytes(8)))
        raw.wait(lambda: raw.pongs == 1)
        assert raw.goaways == []
        send_all(raw, *[frame(Kind.PING, payload=bytes(8))] * 100)
        if front == "grpcio":
            raw.wait(lambda: bool(raw.goaways))
            assert raw.goaways[0][1] == Code.ENHANCE_YOUR_CALM
        else:
            raw.wait(lambda: raw.pongs == 101)
            assert is_served(raw)


def test_calls_that_are_reset_at_once_are_bounded(serve: Serve, front: str) -> None:
    served = serve(front, lame_duck_s=0.0)
    with RawConnection(served.address) as raw:
        for _ in range(5000):
            stream = raw.new_stream()
            send_all(raw, raw.headers(FIELDS, stream) + reset(stream))
        if front == "native":
            raw.wait(lambda: raw.closed)
            assert raw.goaways[0][1] == Code.ENHANCE_YOUR_CALM
        assert answers(served.classify(request_for(3)).result()) == [3]
    assert sum(len(batch) for batch in served.engine.seen) == 1


@pytest.mark.parametrize(
    "more", [pytest.param(b"", id="empty"), pytest.param(b"\0\1x\x64" + b"a" * 100, id="full")]
)
def test_headers_without_end_hold_up_nobody(serve: Serve, front: str, more: bytes) -> None:
    served = serve(front, lame_duck_s=0.0)
    with RawConnection(served.address) as raw:
        send_all(raw, frame(Kind.HEADERS, Flag.NONE, 1, raw.headers(FIELDS, 1)[9:]))
        send_all(raw, *[frame(Kind.CONTINUATION, Flag.NONE, 1, more) * 10] * 2000)
        assert answers(served.classify(request_for(3)).result()) == [3]
        # grpcio reads what is over its limit, and forgets it.
        if front == "native" or not more:
            raw.wait(lambda: raw.closed)


def test_empty_data_without_end_is_bounded(serve: Serve, front: str) -> None:
    served = serve(front, lame_duck_s=0.0)
    with RawConnection(served.address) as raw:
        send_all(raw, raw.headers(FIELDS, 1), *[frame(Kind.DATA, 0, 1) * 100] * 500)
        assert answers(served.classify(request_for(3)).result()) == [3]
        raw.wait(lambda: raw.closed)


def test_calls_beyond_the_limit_of_a_connection_are_refused_unharmed(
    serve: Serve, front: str
) -> None:
    served = serve(front, max_queue=10_000)
    served.engine.hold()
    with RawConnection(served.address) as raw:
        most = raw.settings[Setting.MAX_CONCURRENT_STREAMS]
        taken = [raw.ask(GOOD, CLASSIFY) for _ in range(most)]
        beyond = raw.ask(GOOD, CLASSIFY)
        # So a client may safely try again.
        assert outcome(raw, beyond, "REFUSED_STREAM") == "REFUSED_STREAM"
        served.engine.release()
        assert {raw.answer(stream).status for stream in taken} == {0}


def test_connection_has_as_many_calls_as_are_set(serve: Serve, front: str) -> None:
    served = serve(front, max_streams=16)
    served.engine.hold()
    with RawConnection(served.address) as raw:
        assert raw.settings[Setting.MAX_CONCURRENT_STREAMS] == 16
        taken = [raw.ask(GOOD, CLASSIFY) for _ in range(16)]
        assert outcome(raw, raw.ask(GOOD, CLASSIFY), "REFUSED_STREAM") == "REFUSED_STREAM"
        served.engine.release()
        assert {raw.answer(stream).status for stream in taken} == {0}
