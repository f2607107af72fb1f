"""The loop over real sockets, with servers that stall, leave, end and misbehave."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import grpc
import pytest

from convserve.errors import ServerUnavailable
from convserve_bench import frames, header_blocks
from convserve_bench.generator import Calls, Generator, clock
from convserve_bench.load import Load
from convserve_bench.outcomes import OK, Ended
from convserve_bench.tally import Tally
from convserve_bench.transport import Address
from convserve_protos import classifier_pb2
from tests.clients.scripted_server import PATIENCE_S, Failure, ScriptedServer, answer
from tests.clients.test_retries import reserved_address

FIELDS = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/convserve.v1.Classifier/Classify"),
    (b":authority", b"test"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
]
REQUEST = classifier_pb2.ClassifyRequest(
    model="mnist",
    pixels=classifier_pb2.Pixels(count=1, height=28, width=28, channels=1, data=bytes(784)),
).SerializeToString()
MESSAGE = b"\0" + len(REQUEST).to_bytes(4, "big") + REQUEST
LOAD = Load(callers=4, connections=2, seconds=0.5, warm_up_s=0, timeout_s=PATIENCE_S)

Watch = Callable[[float, Tally], None]


def settings(**changes: Any) -> Load:
    return replace(LOAD, **changes)


def run(
    address: str, load: Load, watch: Watch = lambda *_: None, least: int = 10
) -> tuple[Generator, Tally]:
    host, port = address.split(":")
    calls = Calls(Address(socket.AF_INET, (host, int(port))), FIELDS, [MESSAGE])
    tally = Tally(1, least)
    generator = Generator(load, calls, tally, watch)
    generator.run()
    return generator, tally


def run_until(
    address: str, enough: Callable[[Generator, Tally], object], watch: Watch = lambda *_: None
) -> tuple[Generator, Tally]:
    """Runs for as long as this machine needs for something to come about."""
    made: list[Generator] = []

    def look(since_s: float, tally: Tally) -> None:
        watch(since_s, tally)
        if enough(made[0], tally):
            made[0]._end_s = min(made[0]._end_s, clock())

    host, port = address.split(":")
    calls = Calls(Address(socket.AF_INET, (host, int(port))), FIELDS, [MESSAGE])
    tally = Tally(1, 10)
    made.append(Generator(settings(seconds=PATIENCE_S), calls, tally, look))
    made[0].run()
    return made[0], tally


def test_closed_loop_keeps_each_caller_at_one_call(server: ScriptedServer) -> None:
    generator, tally = run(server.address, settings(callers=7, connections=3))
    assert tally.failures.counts == {}
    assert tally.histogram.count == len(server.requests) == tally.seen
    assert server.most_in_flight <= 7
    assert len(set(server.peers)) == 3
    assert {each.SerializeToString() for each in server.requests} == {REQUEST}
    assert (generator.unsent, generator.lost) == (0, (0, ""))
    means = tally.server.means_us()
    assert means == {"queue": 100, "decode": 0, "compute": 10}


def test_warm_up_is_not_counted(server: ScriptedServer) -> None:
    _, tally = run(server.address, settings(warm_up_s=0.3, seconds=0.3))
    assert 0 < tally.histogram.count < tally.seen == len(server.requests)


def test_stall_over_all_of_the_measured_time_is_in_that_time(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shift = [0.0]
    monkeypatch.setattr("convserve_bench.generator.clock", lambda: time.perf_counter() + shift[0])

    def stall(since_s: float, _: Tally) -> None:
        shift[0] = 30.0

    # The tick after the first one is past the end already.
    generator, _ = run(server.address, settings(warm_up_s=10.0, seconds=0.5), stall)
    assert generator.seconds >= 20.0


def test_open_loop_sends_at_the_rate(server: ScriptedServer) -> None:
    generator, tally = run(server.address, settings(rate=100.0, seconds=1.0))
    assert generator.schedule is not None
    # 100 calls are due; a machine that is busy to the end leaves some of them unsent.
    assert tally.histogram.count + generator.unsent in (99, 100)
    assert len(set(server.peers)) == 2


@pytest.mark.parametrize("open_loop", [True, False])
def test_calls_due_in_a_stall_wait_as_long_as_it_lasts(
    server: ScriptedServer, open_loop: bool
) -> None:
    """100 calls are due in each of two seconds, and for the first half of one none is answered."""
    stalled = threading.Event()

    def stall(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        assert stalled.wait(PATIENCE_S)
        return answer(request)

    def end_stall(since_s: float, _: Tally) -> None:
        if since_s >= 0.5:
            stalled.set()

    server.answer = stall
    load = settings(callers=1, connections=1, seconds=2.0, rate=100.0 if open_loop else None)
    generator, tally = run(server.address, load, end_stall)
    histogram = tally.histogram
    assert histogram.longest_s >= 0.45
    if open_loop:
        # 25 calls were due in the first quarter, each a quarter of a second or more too early.
        assert generator.schedule is not None
        assert generator.schedule.waited + generator.unsent >= 40
        sent = histogram.count + generator.unsent
        assert sent in (199, 200)
        assert histogram.percentile(1 - 20 / histogram.count) >= 0.2
    else:
        # One call waited, and those that the caller would have made did not exist.
        assert histogram.percentile(0.5) < histogram.longest_s / 2


def test_calls_that_are_due_and_never_sent_are_reported(server: ScriptedServer) -> None:
    stalled = threading.Event()
    server.answer = lambda request: answer(request) if stalled.wait(PATIENCE_S) else answer(request)

    def end_stall(since_s: float, _: Tally) -> None:
        if since_s > 0.5:
            stalled.set()

    load = settings(callers=2, connections=1, seconds=0.5, rate=100.0)
    generator, tally = run(server.address, load, end_stall)
    assert tally.histogram.count == 2
    assert generator.unsent in (48, 49)


def test_errors_are_counted_by_status_and_are_no_latencies(server: ScriptedServer) -> None:
    numbers = iter(range(10**9))
    lock = threading.Lock()

    def refuse_some(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        with lock:
            number = next(numbers)
        if number % 4 == 0:
            raise Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full: 100 %")
        if number % 4 == 1:
            raise Failure(grpc.StatusCode.NOT_FOUND, "no model")
        return answer(request)

    server.answer = refuse_some
    _, tally = run(server.address, LOAD)
    assert set(tally.failures.counts) == {"RESOURCE_EXHAUSTED", "NOT_FOUND"}
    assert tally.failures.messages["RESOURCE_EXHAUSTED"] == "the queue is full: 100 %"
    assert tally.histogram.count + tally.failures.total == len(server.requests)
    assert tally.histogram.count == sum(number % 4 > 1 for number in range(len(server.requests)))


def test_replies_that_are_too_short_are_wrong(server: ScriptedServer) -> None:
    server.answer = lambda _: classifier_pb2.ClassifyResponse(model="mnist")
    _, tally = run(server.address, LOAD, least=100)
    assert set(tally.failures.counts) == {"WRONG_REPLY"}
    assert "of 7 bytes" in tally.failures.messages["WRONG_REPLY"]
    assert tally.histogram.count == 0


def test_image_that_failed_inside_a_reply_is_seen(server: ScriptedServer) -> None:
    def failing(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        reply = answer(request)
        reply.results[0].error.message = "broken"
        return reply

    server.answer = failing
    _, tally = run(server.address, LOAD)
    assert tally.failures.messages["WRONG_REPLY"] == "0 of 1 images have an answer: broken"


def test_call_without_an_answer_ends_at_its_timeout(server: ScriptedServer) -> None:
    held = threading.Event()
    server.answer = lambda request: answer(request) if held.wait(PATIENCE_S) else answer(request)
    # Long enough for each call to reach the server.
    _, tally = run(server.address, settings(seconds=0.2, timeout_s=1.0))
    assert set(tally.failures.counts) == {"DEADLINE_EXCEEDED"}
    assert tally.failures.messages["DEADLINE_EXCEEDED"] == "no answer within 1 s"
    # The server learns that nobody waits any more.
    for _ in range(4):
        assert server.abandoned.acquire(timeout=PATIENCE_S)
    held.set()


def test_answer_after_the_timeout_is_none() -> None:
    tally = Tally(1, 10, timeout_s=0.5)
    tally.between(10.0, 20.0)
    tally.add([Ended(10.0, OK, bytes(10)), Ended(10.5, OK, bytes(10))], 10.75)
    tally.add([Ended(19.8, OK, bytes(10))], 20.1)  # In time, but over after the end.
    tally.flush()
    assert (tally.answered, tally.in_time, tally.histogram.count) == (1, 2, 2)
    assert tally.failures.counts["DEADLINE_EXCEEDED"] == 1


def test_times_of_the_server_are_those_of_calls_that_are_measured() -> None:
    tally = Tally(1, 10)
    tally.between(10.0, 20.0)
    reply = answer(classifier_pb2.ClassifyRequest.FromString(REQUEST)).SerializeToString()
    tally.add([Ended(9.9, OK, reply)], 10.1)
    assert tally.server.means_us() is None
    # However few there are.
    tally.add([Ended(10.1, OK, reply)], 10.2)
    assert tally.server.means_us() == {"queue": 100, "decode": 0, "compute": 10}


def test_server_that_is_killed_and_comes_back_is_used_again() -> None:
    with reserved_address() as address:
        servers = [ScriptedServer(address)]
        answered: list[int] = []

        def kill_and_start(since_s: float, tally: Tally) -> None:
            if len(servers) == 1 and tally.histogram.count > 20:
                servers[0].stop()
                servers.append(ScriptedServer(address))
                answered.append(tally.in_time)

        generator, tally = run_until(
            address,
            lambda _, tally: answered and servers[1].requests and tally.in_time > answered[0],
            kill_and_start,
        )
        servers[-1].stop()
    # Calls in flight may fail as the server is killed, or be refused by it just before.
    assert set(tally.failures.counts) <= {"UNAVAILABLE", "CANCELLED"}
    assert tally.failures.total <= LOAD.callers
    assert generator.unsent == 0
    assert len(servers[1].requests) > 0
    assert tally.in_time > answered[0]


def test_server_that_is_gone_for_good_does_not_hold_the_run(server: ScriptedServer) -> None:
    def stop(since_s: float, tally: Tally) -> None:
        if tally.histogram.count > 20:
            server.stop()

    def all_wait(generator: Generator, _: Tally) -> bool:
        waiting = sum(len(group._waiting) for group in generator._groups)
        return waiting == LOAD.callers and bool(generator.lost[1])

    generator, tally = run_until(server.address, all_wait, stop)
    assert tally.histogram.count > 20
    assert generator.lost[1].startswith(("cannot connect", "connection lost"))
    assert generator.unsent == 4


def test_nobody_there_is_an_error() -> None:
    with reserved_address() as address, pytest.raises(ServerUnavailable, match="refused"):
        run(address, settings(timeout_s=1.0))


HEAD, _ = header_blocks.encode([(b":status", b"200"), (b"content-type", b"application/grpc")], 0)
END, _ = header_blocks.encode([(b"grpc-status", b"0")], 0)


class RawServer:
    """Speaks just enough HTTP/2 to do what no real server does on request.

    Args:
        leave_after: Calls that each connection accepts; the server leaves at the next one.
        most: Streams at one time.
        leave: Sends what the server does then; given the socket, the last stream that was
            processed, and the one that was not.
    """

    def __init__(
        self, leave_after: int, most: int, leave: Callable[[socket.socket, int, int], None]
    ) -> None:
        self.connections = 0
        self.most_open = 0
        self.processed = 0
        self._leave_after, self._most, self._leave = leave_after, most, leave
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        # Wakes the thread that accepts.
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_S)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        # A client that leaves resets what it did not read.
        with suppress(ConnectionError), connection, connection.makefile("rb") as incoming:
            if not (preface := incoming.read(len(frames.PREFACE))):
                return
            assert preface == frames.PREFACE
            connection.sendall(frames.settings({frames.MAX_CONCURRENT_STREAMS: self._most}))
            streams: list[int] = []
            left = False
            while len(head := incoming.read(frames.HEAD_BYTES)) == frames.HEAD_BYTES:
                _, lower, kind, flags, stream = frames.HEAD.unpack(head)
                incoming.read(lower)
                if kind == frames.HEADERS and len(streams) < self._leave_after:
                    streams.append(stream)
                elif kind == frames.HEADERS and not left:
                    left = True
                    self._leave(connection, streams[-1], stream)
                if kind != frames.DATA or stream not in streams or not flags & frames.END_STREAM:
                    continue
                self.processed += 1
                reply = answer(classifier_pb2.ClassifyRequest.FromString(REQUEST))
                text = reply.SerializeToString()
                connection.sendall(
                    frames.window_update(0, len(MESSAGE))
                    + frames.frame(frames.HEADERS, frames.END_HEADERS, stream, HEAD)
                    + frames.frame(
                        frames.DATA, 0, stream, b"\0" + len(text).to_bytes(4, "big") + text
                    )
                    + frames.frame(frames.HEADERS, 5, stream, END)
                )


@contextmanager
def raw_server(
    leave: Callable[[socket.socket, int, int], None], leave_after: int = 5, most: int = 100
) -> Iterator[RawServer]:
    server = RawServer(leave_after, most, leave)
    try:
        yield server
    finally:
        server.close()


def go_away(connection: socket.socket, last: int, _: int = 0) -> None:
    code = struct.pack(">LL", last, frames.NO_ERROR)
    connection.sendall(frames.frame(frames.GOAWAY, 0, 0, code))


@pytest.mark.parametrize("rate", [None, 50.0])
def test_connection_that_the_server_leaves_is_replaced_without_a_failure(
    rate: float | None,
) -> None:
    with raw_server(go_away) as server:
        generator, tally = run(server.address, settings(seconds=1.5, rate=rate))
    assert server.connections > 3
    assert tally.failures.counts == {}
    assert generator.lost[0] == 0
    # What the server did not take was sent again: nothing is missing, nothing came twice.
    assert tally.histogram.count == server.processed
    if generator.schedule is not None:
        assert tally.histogram.count + generator.unsent in (74, 75)
    # Callers may wait for a new connection at the end.
    if rate is None:
        assert generator.unsent <= LOAD.callers


def test_streams_that_are_reset_are_failures() -> None:
    def reset(connection: socket.socket, _: int, stream: int) -> None:
        connection.sendall(frames.rst_stream(stream, frames.ENHANCE_YOUR_CALM))
        go_away(connection, stream)

    with raw_server(reset) as server:
        _, tally = run_until(server.address, lambda _, tally: tally.failures.total)
    assert set(tally.failures.counts) == {"RESOURCE_EXHAUSTED"}
    assert tally.failures.messages["RESOURCE_EXHAUSTED"] == "the server reset the stream, code 11"
    assert tally.histogram.count == server.processed


def test_connection_with_nonsense_on_it_is_lost() -> None:
    def rave(connection: socket.socket, last: int, stream: int) -> None:
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 2)

    with raw_server(rave) as server:
        generator, tally = run_until(server.address, lambda generator, _: generator.lost[0] >= 2)
    assert set(tally.failures.counts) == {"UNAVAILABLE"}
    assert tally.failures.messages["UNAVAILABLE"] == "connection lost: a frame is too large"
    assert generator.lost[0] >= 2


def test_no_more_streams_are_opened_than_the_server_accepts() -> None:
    def never(connection: socket.socket, last: int, stream: int) -> None:
        raise AssertionError

    opened: list[int] = []
    with raw_server(never, leave_after=10**9, most=3) as server:

        def watch(since_s: float, tally: Tally) -> None:
            opened.extend(
                transport.connection.in_flight
                for _, transport in generator_of[0]._transports.values()
            )

        generator_of: list[Generator] = []
        host, port = server.address.split(":")
        calls = Calls(Address(socket.AF_INET, (host, int(port))), FIELDS, [MESSAGE])
        tally = Tally(1, 10)
        generator_of.append(Generator(settings(callers=40, connections=2), calls, tally, watch))
        generator_of[0].run()
    assert max(opened) == 3
    assert tally.failures.counts == {}
    assert tally.histogram.count == server.processed
