"""The threads of the native transport's library."""

import os
import sys
from pathlib import Path

import pytest

from convserve_server.protocols.router import Router
from convserve_server.transports.base import TransportOptions
from convserve_server.transports.native import NativeTransport, _NativeCall
from tests.server.transports.test_native_overload import METHOD, Service


@pytest.mark.skipif(sys.platform != "linux", reason="SCHED_BATCH is Linux's")
def test_an_answer_does_not_interrupt_the_thread_that_makes_the_next() -> None:
    transport = NativeTransport(TransportOptions("127.0.0.1", 0, 2**20, 60, 0.0, False))
    transport.start(Router([Service()]))
    try:
        threads = [
            int(task.name)
            for task in Path("/proc/self/task").iterdir()
            if (task / "comm").read_text().startswith("grpc-native-io")
        ]
        assert threads
        assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_BATCH}
    finally:
        transport.close()


@pytest.mark.parametrize(("idle_caller", "yields"), [(True, 1), (False, 0)])
def test_the_answer_to_a_lone_caller_is_sent_before_anything_else_is_done(
    monkeypatch: pytest.MonkeyPatch, idle_caller: bool, yields: int
) -> None:
    done: list[str] = []

    class Front:
        def respond(self, number: int, payload: bytes) -> bool:
            done.append(f"{number} {payload!r}")
            return True

    monkeypatch.setattr(os, "sched_yield", lambda: done.append("yield"))
    transport = NativeTransport(TransportOptions("127.0.0.1", 0, 2**20, 60, 0.0, False))
    transport.front = Front()  # type: ignore[assignment]
    call = _NativeCall(transport, 7, METHOD, b"", None, "peer", (), idle_caller)
    assert call.send(b"answer")
    assert done == ["7 b'answer'", *["yield"] * yields]
