"""Calls that ask for no version while a label moves, and what answers them."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc

from convserve_protos.classifier_pb2_grpc import ClassifierStub
from tests.system.conftest import WAIT_S
from tests.system.test_serving import answer, channel_to, request_for
from tests.system.test_supervision import until

CONNECTIONS = 4
#: Between two calls of a connection: other programs run beside the tests.
PAUSE_S = 0.005
#: Calls to each server after each move.
CALLS = 25


class Callers:
    """Connections that call servers again and again and retry nothing.

    Args:
        addresses: of the servers, which have mnist/1 and mnist/2.
        version: that answers.
    """

    def __init__(self, addresses: Sequence[str], version: int) -> None:
        #: How often each server has answered.
        self.answered: Counter[str] = Counter()
        self.versions: set[int] = set()
        self.failed: list[str] = []
        #: Answers that another version should have given, or that are not right.
        self.wrong: list[str] = []
        # The number of moves so far, and the only version that may answer; None: either.
        self._phase: tuple[int, int | None] = (0, version)
        self._addresses = addresses
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._call, args=(address,))
            for address in addresses
            for _ in range(CONNECTIONS)
        ]

    def move(self, version: int, move: Callable[[int], object]) -> None:
        """Move the label; from the end of that on, the version answers each call that begins.

        Args:
            version: that has the label then.
            move: moves it; returns when all servers follow.
        """
        self._phase = (self._phase[0] + 1, None)
        move(version)
        self._phase = (self._phase[0], version)
        self._wait_for_calls()

    def _wait_for_calls(self) -> None:
        before = self.answered.copy()
        until(
            lambda: all(self.answered[one] >= before[one] + CALLS for one in self._addresses),
            "calls",
        )

    def _call(self, address: str) -> None:
        with channel_to(address) as channel:
            stub: Any = ClassifierStub(channel)
            while not self._stop.wait(PAUSE_S):
                begun = self._phase
                try:
                    response = stub.Classify(request_for(3), timeout=WAIT_S)
                except grpc.RpcError as error:
                    with self._lock:
                        self.failed.append(str(error))
                    continue
                expected = begun[1] if self._phase == begun else None
                with self._lock:
                    self.answered[address] += 1
                    self.versions.add(response.version)
                    if expected not in (None, response.version) or answer(response) != 3:
                        self.wrong.append(f"{address}: {response.version}, not {expected}")

    def start(self) -> None:
        for thread in self._threads:
            thread.start()
        self._wait_for_calls()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@contextmanager
def callers(addresses: Sequence[str], version: int) -> Iterator[Callers]:
    them = Callers(addresses, version)
    try:
        them.start()
        yield them
    finally:
        them.stop()
