"""Measures how many calls are lost while servers are killed, stopped, brought back and added.

    python -m benchmarks.robustness.lost_calls --models models

Three servers have one name, and a client keeps calls in flight. One server is killed (SIGKILL, all
its processes) and brought back; another is stopped (SIGTERM) and brought back. Then the name gets a
fourth address. The time is counted until its server answers as many calls as a fifth of what all
do: no client is started anew, so its address has to be looked up again.

The client balances by itself, as Client and as AsyncClient, over each front. Where there is an
Envoy, it balances in the client's place, over TLS, by deploy/envoy/envoy.yaml.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import numpy as np

from benchmarks.harness.bundles import Bundle
from benchmarks.harness.command import (
    BenchmarkError,
    add_models_option,
    execute,
    new_parser,
    tell,
    whole,
)
from benchmarks.harness.envoy import Envoy, find_envoy, options_before, write_certificate
from benchmarks.harness.fleet import Fleet
from benchmarks.harness.name_server import NameServer
from benchmarks.harness.processes import ServerFailed
from benchmarks.harness.report import heading, machine, write_json
from benchmarks.harness.servers import FRONTS
from benchmarks.harness.table import grid
from benchmarks.harness.traffic import AsyncTraffic, Counts, Question, ThreadTraffic, going_on

_PACKAGES = ("convserve", "grpcio", "pygrpc-native")
#: Of its three servers.
KILLED, STOPPED, ADDED = 0, 1, 3
#: Of all calls, that the fourth server must answer; a fourth of them would be its share.
_SHARE = 0.2
_LOOK_S = 0.5
_PATIENCE_S = 120.0


Way: TypeAlias = type[ThreadTraffic] | type[AsyncTraffic]


@dataclass(frozen=True)
class Outcome:
    """What became of the calls.

    Attributes:
        front: of the servers.
        way: who balances.
        calls: that were made.
        lost: of these, why and how many.
        share_s: seconds until the fourth server had its share.
    """

    front: str
    way: str
    calls: int
    lost: dict[str, int]
    share_s: float


def questions_of(bundle: Bundle, images: int = 16) -> list[Question]:
    """Returns random images, and what the model answers."""
    shape = (images, *bundle.shape)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    found = bundle.probabilities(pixels).argmax(axis=1)
    labels = bundle.manifest.labels
    return [
        Question(image, labels[index]) for image, index in zip(pixels, found.tolist(), strict=True)
    ]


def lose(fleet: Fleet, counts: Counts, calls: int) -> None:
    """Kills a server, and brings it back; stops another one, and brings it back.

    Args:
        fleet: of which three servers run.
        counts: of the calls that go on meanwhile.
        calls: that are made at least; each event waits for its share of them, not for a time.

    Raises:
        BenchmarkError: the server that was stopped did not end as it should, or one that is back
            gets no calls within two minutes.
    """
    counts.wait_for(calls // 6)
    fleet.kill(KILLED)
    counts.wait_for(2 * calls // 6)
    fleet.start(KILLED)
    counts.wait_for(3 * calls // 6)
    if status := fleet.terminate(STOPPED):
        raise BenchmarkError(f"exit status after SIGTERM: expected 0, got {status}")
    counts.wait_for(4 * calls // 6)
    fleet.start(STOPPED)
    counts.wait_for(5 * calls // 6)
    end = time.monotonic() + _PATIENCE_S
    while not all(_rows(fleet).values()):
        if time.monotonic() > end:
            raise BenchmarkError(f"images answered: expected some of each, got {_rows(fleet)}")
        time.sleep(_LOOK_S)
    counts.wait_for(calls)


def add(fleet: Fleet, names: NameServer) -> float:
    """Adds a fourth server and its address; returns the seconds until it has its share.

    Args:
        fleet: of which three servers run, and are called.
        names: with their addresses.

    Raises:
        BenchmarkError: it does not get it within two minutes.
    """
    fleet.start(ADDED)
    names.addresses = (*names.addresses, fleet.host(ADDED))
    begun = time.monotonic()
    before = _rows(fleet)
    while (passed_s := time.monotonic() - begun) < _PATIENCE_S:
        time.sleep(_LOOK_S)
        now = _rows(fleet)
        answered = {number: now[number] - before[number] for number in now}
        if answered[ADDED] >= _SHARE * max(1, sum(answered.values())):
            return time.monotonic() - begun
        before = now
    raise BenchmarkError(f"the fourth server has not its share after {passed_s:.0f} s: {answered}")


def _rows(fleet: Fleet) -> dict[int, int]:
    return {number: server.rows() for number, server in fleet.running.items()}


def _measure(
    arguments: argparse.Namespace, bundle: Bundle, front: str, way: Way, envoy: Path | None
) -> Outcome:
    flags = ["--front", front, "--workers", "1"]
    if envoy is None:
        flags += ["--max-connection-age-s", f"{arguments.age_s:g}"]
    with ExitStack() as stack:
        fleet = stack.enter_context(Fleet(arguments.models, flags))
        addresses = [Fleet.host(number) for number in range(3)]
        names = stack.enter_context(NameServer(addresses))
        for number in range(3):
            fleet.start(number)
        server, options = names.target(fleet.port), {}
        if envoy is not None:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="convserve-envoy-")))
            write_certificate(folder)
            proxy = stack.enter_context(Envoy(envoy, folder, names.address, fleet.port))
            server, options = proxy.tls_address, options_before(folder)
        traffic = way(server, arguments.in_flight, model=bundle.model, **options)
        counts = Counts(questions_of(bundle))
        with going_on(traffic, counts):
            lose(fleet, counts, arguments.calls)
            share_s = add(fleet, names)
    balances = "the client" if envoy is None else "Envoy"
    return Outcome(front, f"{balances}, {way.name}", counts.ended, dict(counts.lost), share_s)


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.robustness.lost_calls", __doc__)
    add_models_option(result)
    result.add_argument("--model", default="mnist", metavar="NAME", help="[default: mnist]")
    result.add_argument(
        "--calls", type=whole(60), default=20_000, metavar="N",
        help="while servers are lost [default: 20000]",
    )  # fmt: skip
    result.add_argument(
        "--in-flight", type=whole(1), default=32, metavar="N", help="calls [default: 32]"
    )
    result.add_argument(
        "--age-s", type=float, default=30.0, metavar="S",
        help="the servers' --max-connection-age-s [default: 30]",
    )  # fmt: skip
    result.add_argument(
        "--front", choices=FRONTS, help="of the servers [default: first one, then the other]"
    )
    result.add_argument(
        "--balancing", choices=("client", "envoy"),
        help="who balances [default: first the client, then Envoy, where there is one]",
    )  # fmt: skip
    result.add_argument(
        "--envoy", type=Path, metavar="FILE",
        help="Envoy's program [default: that of make test-envoy or of PATH, if there is one]",
    )  # fmt: skip
    result.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    return result


def run(arguments: argparse.Namespace) -> None:
    """Starts the servers, measures, prints.

    Raises:
        BenchmarkError: a server does not start, or Bundle.newest.
    """
    bundle = Bundle.newest(arguments.models, arguments.model)
    envoy = None if arguments.balancing == "client" else find_envoy(arguments.envoy)
    if arguments.balancing == "envoy" and envoy is None:
        raise BenchmarkError("there is no Envoy; make test-envoy installs it")
    outcomes = []
    ways: list[Path | None] = [] if arguments.balancing == "envoy" else [None]
    for balancing in (*ways, *([envoy] if envoy else [])):
        for front in FRONTS if arguments.front is None else (arguments.front,):
            for way in (ThreadTraffic, AsyncTraffic):
                try:
                    outcomes.append(_measure(arguments, bundle, front, way, balancing))
                except (ServerFailed, TimeoutError) as error:
                    raise BenchmarkError(str(error)) from error
                tell(f"{outcomes[-1]}")
    on = machine(_PACKAGES)
    details = [f"{arguments.in_flight} calls in flight", f"connections of {arguments.age_s:g} s"]
    print(heading(on, "servers and client", details), _table(outcomes), sep="\n\n")
    write_json(arguments.json, on, {"calls": arguments.calls}, outcomes=outcomes)


def _table(outcomes: Sequence[Outcome]) -> str:
    header = ("front", "balancing", "calls", "lost", "why", "s until the fourth has its share")
    lines = [
        (
            each.front, each.way, f"{each.calls:,}", f"{sum(each.lost.values())}",
            ", ".join(f"{why} ({count})" for why, count in each.lost.items()) or "-",
            f"{each.share_s:.0f}",
        )
        for each in outcomes
    ]  # fmt: skip
    return grid(header, lines, {"front", "balancing", "why"})


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))
