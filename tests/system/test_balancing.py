"""Servers behind one name, over which a client balances. Linux: they are at 127.0.0.2 and up."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.harness.bundles import Bundle
from benchmarks.harness.fleet import Fleet
from benchmarks.harness.name_server import NameServer
from benchmarks.harness.traffic import AsyncTraffic, Counts, ThreadTraffic, going_on
from benchmarks.robustness.lost_calls import Way, add, lose, questions_of
from convserve import Classification, Client
from tests.bundles import digit_of
from tests.system.conftest import StartServer

#: So that connections end, and the name is looked up again, all the time.
AGE_S = 1
CALLS = 2000


@pytest.mark.parametrize(("front", "way"), [("grpcio", ThreadTraffic), ("native", AsyncTraffic)])
def test_no_call_is_lost_while_servers_are_killed_stopped_brought_back_and_added(
    models: Path, front: str, way: Way
) -> None:
    questions = questions_of(Bundle.newest(models, "mnist"))
    flags = ["--front", front, "--workers", "1", "--max-connection-age-s", str(AGE_S)]
    addresses = [Fleet.host(number) for number in range(3)]
    with Fleet(models, flags) as fleet, NameServer(addresses) as names:
        for number in range(3):
            fleet.start(number)
        traffic = way(names.target(fleet.port), 32, model="mnist", timeout=60.0)
        counts = Counts(questions)
        with going_on(traffic, counts):
            lose(fleet, counts, CALLS)
            add(fleet, names)
    assert counts.ended >= CALLS
    assert dict(counts.lost) == {}


@pytest.mark.parametrize("front", ["grpcio", "native"])
def test_stream_outlives_the_connections_of_calls_beside_it(
    start_server: StartServer, front: str
) -> None:
    flags = ("--front", front, "--workers", "1", "--max-connection-age-s", "0.2")
    address = start_server(*flags).wait_until_serving()
    with Client(address, model="mnist", retry_unavailable=False, timeout=60.0) as client:

        def images() -> Iterator[npt.NDArray[np.uint8]]:
            yield digit_of(3)
            end = time.monotonic() + 2.0  # Ten ages.
            while time.monotonic() < end:
                assert client.classify(digit_of(4)).label == "4"
            yield digit_of(5)

        outcomes = dict(client.stream(images()))
    found = [each.label for each in outcomes.values() if isinstance(each, Classification)]
    assert found == ["3", "5"]
