"""The threads of the native transport's library."""

import os
import sys
from pathlib import Path

import pytest

from convserve_server.protocols.router import Router
from convserve_server.transports.base import TransportOptions
from convserve_server.transports.native import NativeTransport
from tests.server.transports.test_native_overload import Service


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
