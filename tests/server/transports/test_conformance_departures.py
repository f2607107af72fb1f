"""Callers that leave before they have their answer, and a server that leaves, on every front."""

import os
import signal
import threading
from pathlib import Path

import grpc

from benchmarks.harness.http2_frames import Setting, call_fields, message, open_window, reset
from benchmarks.harness.raw_http2 import RawConnection
from benchmarks.harness.servers import FRONTS, ours
from convserve_server.protocols.base import Call
from tests.bundles import write_bundle
from tests.server.conftest import (
    SOON_S,
    WAIT_S,
    CallWatch,
    Serve,
    Served,
    answers,
    request_for,
)
from tests.server.outcomes import GOOD, changed, is_served, outcome, send_call
from tests.server.transports.test_conformance import CLASSIFY, until


def waiting(served: Served) -> int:
    """Images in the queue."""
    return served.worker.repository.get("mnist", None).batcher.waiting


def computed(served: Served) -> int:
    """Images that the engine has had."""
    return sum(len(batch) for batch in served.engine.seen)


def test_reset_call_frees_its_space_in_the_queue(serve: Serve, front: str) -> None:
    served = serve(front)
    served.engine.hold()
    running = served.classify(request_for(0))
    served.engine.wait_entered()
    with RawConnection(served.address) as raw:
        leaving = raw.ask(GOOD, CLASSIFY)
        until(lambda: waiting(served) == 1)
        raw.send(reset(leaving))
        until(lambda: waiting(served) == 0)
        staying = raw.ask(GOOD, CLASSIFY)
        until(lambda: waiting(served) == 1)
        served.engine.release()
        assert outcome(raw, staying, "OK") == "OK"
        assert raw.answers[leaving].status is None
    assert answers(running.result()) == [0]
    assert computed(served) == 2


def test_call_that_is_reset_half_sent_is_never_begun(serve: Serve, front: str) -> None:
    served = serve(front)
    with RawConnection(served.address) as raw:
        stream = raw.new_stream()
        raw.send(raw.headers(call_fields(CLASSIFY), stream))
        raw.data(message(GOOD)[:100], stream)
        raw.send(reset(stream))
        assert is_served(raw)
        assert raw.answers[stream].status is None
    assert computed(served) == 1


def test_connection_that_breaks_takes_its_calls_from_the_queue(serve: Serve, front: str) -> None:
    served = serve(front)
    served.engine.hold()
    running = served.classify(request_for(0))
    served.engine.wait_entered()
    with RawConnection(served.address) as raw:
        for _ in range(5):
            raw.ask(GOOD, CLASSIFY)
        until(lambda: waiting(served) == 5)
    until(lambda: waiting(served) == 0)
    served.engine.release()
    assert answers(running.result()) == [0]


def test_deadline_is_the_servers_too(serve: Serve, front: str) -> None:
    served = serve(front)
    served.engine.hold()
    running = served.classify(request_for(0))
    served.engine.wait_entered()
    with RawConnection(served.address) as raw:
        # A client of gRPC gives up by itself, whatever the server does; this one waits.
        late = send_call(raw, changed(grpc_timeout="100m"))
        assert outcome(raw, late, "DEADLINE_EXCEEDED") == "DEADLINE_EXCEEDED"
    served.engine.release()
    assert answers(running.result()) == [0]
    assert computed(served) == 1


def test_call_that_is_over_still_says_who_called(serve: Serve, front: str) -> None:
    # As the access log asks it when an answer is ready that nobody waits for any more.
    calls: list[Call] = []
    served = serve(front, interceptors=[CallWatch(CLASSIFY, calls.append)])
    served.engine.hold()
    name = "a name that is longer than what grpc keeps in the call itself"
    late = served.stub.Classify.future(
        request_for(3), timeout=SOON_S, metadata=(("x-who", name), ("x-short", "me"))
    )
    assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: not served.worker._router.in_flight)
    served.engine.release()
    assert answers(served.classify(request_for(3)).result()) == [3]
    over, _ = calls
    assert over.caller().peer.startswith("ipv4:127.0.0.1:")
    assert (over.header("x-who"), over.header("x-short")) == (name, "me")


def test_answer_waits_for_a_reader_and_holds_up_nobody(serve: Serve, front: str) -> None:
    served = serve(front)
    with RawConnection(served.address, {Setting.INITIAL_WINDOW_SIZE: 0}) as raw:
        stream = raw.ask(GOOD, CLASSIFY)
        raw.wait(lambda: ":status" in raw.answers[stream].headers)
        assert answers(served.classify(request_for(3)).result()) == [3]
        assert not raw.answers[stream].data
        raw.send(open_window(stream, 10))
        raw.wait(lambda: len(raw.answers[stream].data) == 10)
        raw.send(open_window(stream, 1000))
        assert outcome(raw, stream, "OK") == "OK"


def test_drain_answers_on_a_connection_that_stays_open(serve: Serve, front: str) -> None:
    served = serve(front, lame_duck_s=0.0)
    with RawConnection(served.address) as raw:
        served.engine.hold()
        running = raw.ask(GOOD, CLASSIFY)
        served.engine.wait_entered()
        stopping = threading.Thread(target=served.worker.stop)
        stopping.start()
        until(lambda: served.worker._router._refusing)
        refused = raw.ask(GOOD, CLASSIFY)
        assert outcome(raw, refused, "UNAVAILABLE") == "UNAVAILABLE"
        served.engine.release()
        assert outcome(raw, running, "OK") == "OK"
        stopping.join(WAIT_S)
        # No GOAWAY: calls on their way are refused with a reason until the process ends.
        assert (raw.goaways, raw.closed) == ([], False)


def test_process_that_stops_ends_its_connections_without_goaway(tmp_path: Path, front: str) -> None:
    bundle = write_bundle(tmp_path / "models")
    servers = dict(zip(FRONTS, ours(bundle, "--workers 1"), strict=True))
    with servers[front] as server, RawConnection(server.address) as raw:
        assert is_served(raw)
        os.kill(server.root(), signal.SIGTERM)
        raw.wait(lambda: raw.closed)
        assert raw.goaways == []
