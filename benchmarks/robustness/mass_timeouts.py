"""Measures what becomes of the calls beside many whose deadlines pass at once.

    python -m benchmarks.robustness.mass_timeouts --models models

A server stands still (SIGSTOP), as one does whose processor is busy with other work, until the
deadlines of some calls of a connection have passed. Their client resets their streams. When the
server goes on it reads at once how these calls began and that they were reset. With the transport
`native` more than 20 of them end the connection: GOAWAY, ENHANCE_YOUR_CALM, "too_many_resets". The
limit is h2's default, against rapid resets (CVE-2023-44487), and pygrpc-native has no option for
it. The other calls of the connection are then UNAVAILABLE; the library's client makes them again.

Source: https://docs.rs/h2 (server::Builder::max_pending_accept_reset_streams).
"""

import argparse
import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import numpy as np

from benchmarks.harness.answers import Questions
from benchmarks.harness.bundles import Bundle
from benchmarks.harness.command import (
    add_models_option,
    add_run_options,
    execute,
    new_parser,
    numbers,
    tell,
)
from benchmarks.harness.meter import reported
from benchmarks.harness.processes import ServerProcess, process_tree
from benchmarks.harness.report import heading, machine, write_json
from benchmarks.harness.revisions import Source
from benchmarks.harness.servers import FRONTS, server_of
from benchmarks.harness.table import grid
from convserve import AsyncClient, ConvserveError
from convserve_protos import classifier_pb2_grpc

PLAIN, LIBRARY = "grpc.aio", "convserve.AsyncClient"

_PACKAGES = ("convserve", "grpcio", "pygrpc-native")
#: Calls of the same connection that have time.
_OTHERS = 16
_PATIENCE_S = 20.0
#: From a call to its deadline, and by how much longer the server stands still, s.
_DEADLINE_S = 0.3
_LONGER_S = 0.1

Ask = Callable[[float], Awaitable[object]]
"""Makes one call with so many seconds to its deadline."""


@dataclass(frozen=True)
class Outcome:
    """What became of the calls, over all rounds.

    Attributes:
        front: of the server.
        client: PLAIN or LIBRARY.
        timeouts: calls whose deadlines pass, in each round.
        others: calls that have time, of all rounds.
        answered: of these.
        failed: the rest, by status.
        why: of the last one that failed.
    """

    front: str
    client: str
    timeouts: int
    others: int
    answered: int
    failed: dict[str, int]
    why: str


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.robustness.mass_timeouts", __doc__)
    add_models_option(result)
    result.add_argument("--model", default="mnist", metavar="NAME", help="[default: mnist]")
    result.add_argument(
        "--timeouts", type=numbers, default=[20, 21, 500], metavar="N,N",
        help="calls whose deadlines pass at once [default: 20,21,500]",
    )  # fmt: skip
    add_run_options(result, rounds=5, measured="front, client and number")
    return result


@contextmanager
def _standing_still(server: ServerProcess) -> Iterator[None]:
    """Stops the processes of a server, workers first, and lets them go on at the end."""
    processes = [*process_tree(server.root())][::-1]
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)


async def _round(server: ServerProcess, ask: Ask, timeouts: int) -> list[BaseException | object]:
    """Returns what the calls that had time ended with."""
    await ask(_PATIENCE_S)  # So that there is a connection.
    with _standing_still(server):
        others = [asyncio.ensure_future(ask(_PATIENCE_S)) for _ in range(_OTHERS)]
        late = [asyncio.ensure_future(ask(_DEADLINE_S)) for _ in range(timeouts)]
        await asyncio.gather(*late, return_exceptions=True)
        await asyncio.sleep(_LONGER_S)
    return await asyncio.gather(*others, return_exceptions=True)


async def _measure(
    server: ServerProcess, client: str, questions: Questions, timeouts: int, rounds: int
) -> list[BaseException | object]:
    ended = []
    for _ in range(rounds):  # Each over a new connection.
        if client == LIBRARY:
            async with AsyncClient(server.address, model=questions.model) as library:
                ended += await _round(server, partial(_by_library, library, questions), timeouts)
        else:
            options = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.insecure_channel(server.address, options) as channel:
                stub = classifier_pb2_grpc.ClassifierStub(channel)
                ended += await _round(server, partial(_by_stub, stub, questions), timeouts)
    return ended


async def _by_library(client: AsyncClient, questions: Questions, timeout_s: float) -> object:
    return await client.classify(np.asarray(questions.images[:1]), timeout=timeout_s)


async def _by_stub(stub: Any, questions: Questions, timeout_s: float) -> object:
    return await stub.Classify(questions.request(0, 1), timeout=timeout_s)


def _outcome(
    front: str, client: str, timeouts: int, ended: list[BaseException | object]
) -> Outcome:
    failed: Counter[str] = Counter()
    why = ""
    for each in ended:
        if isinstance(each, grpc.aio.AioRpcError):
            failed[each.code().name] += 1
            why = each.details() or ""
        elif isinstance(each, ConvserveError):
            failed[each.code.name if each.code else type(each).__name__] += 1
            why = str(each)
        elif isinstance(each, BaseException):
            raise each
    total = len(ended)
    return Outcome(front, client, timeouts, total, total - failed.total(), dict(failed), why)


def run(arguments: argparse.Namespace) -> None:
    """Starts the servers in turn, measures, prints.

    Raises:
        BenchmarkError: if a server does not start, or Bundle.newest.
    """
    bundle = Bundle.newest(arguments.models, arguments.model)
    questions = Questions.of_pixels(bundle, 1)
    outcomes = []
    for front in FRONTS:
        server = server_of(Source.today(), front, bundle.file, "--workers 1")
        with ExitStack() as stack, reported(server, ""):
            stack.enter_context(server)
            questions.check(server.address)
            for client in (PLAIN, LIBRARY):
                for timeouts in arguments.timeouts:
                    ended = asyncio.run(
                        _measure(server, client, questions, timeouts, arguments.rounds)
                    )
                    outcomes.append(_outcome(front, client, timeouts, ended))
                    tell(f"{outcomes[-1]}")
    on = machine(_PACKAGES)
    about = {"rounds": arguments.rounds}
    details = [f"{_OTHERS} calls that have time beside them, in {arguments.rounds} rounds"]
    print(heading(on, "both", details), _table(outcomes), sep="\n\n")
    write_json(arguments.json, on, about, outcomes=outcomes)


def _table(outcomes: list[Outcome]) -> str:
    header = ("front", "client", "time out at once", "others", "answered", "others failed", "why")
    lines = [
        (
            each.front, each.client, f"{each.timeouts}", f"{each.others}", f"{each.answered}",
            ", ".join(f"{name} {count}" for name, count in each.failed.items()) or "0",
            each.why.replace("|", "/") or "-",
        )
        for each in outcomes
    ]  # fmt: skip
    return grid(header, lines, {"front", "client", "others failed", "why"})


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))
