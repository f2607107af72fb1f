"""Measures how much memory an abusive client makes a server use, and what other clients get.

    python -m benchmarks.robustness.abuse --models models
    python -m benchmarks.robustness.abuse --against v0.1.0

Each attack meets a new server of one worker, on this machine only. It is sent as far as the server
accepts it and then held, while another client makes one call after another. A server that uses
2 GiB is killed, and its row says so.
"""

import argparse
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np

from benchmarks.harness.answers import CLASSIFY, Questions
from benchmarks.harness.bundles import Bundle
from benchmarks.harness.command import BenchmarkError, add_models_option, execute, new_parser, tell
from benchmarks.harness.memory import MemoryWatch, private_bytes
from benchmarks.harness.meter import reported
from benchmarks.harness.processes import ServerProcess, process_tree
from benchmarks.harness.report import heading, machine, write_json
from benchmarks.harness.revisions import Source, checked_out
from benchmarks.harness.servers import FRONTS, server_of
from benchmarks.harness.table import grid
from benchmarks.robustness.attacks import Attack, attacks
from benchmarks.robustness.picture_attacks import Kind, picture_attacks
from convserve_bundle.folder import list_bundles

_PACKAGES = ("convserve", "grpcio", "onnxruntime", "pygrpc-native")
_MIB = 2**20
_STATUS = {code.value[0]: code.name for code in grpc.StatusCode}
#: The largest message, as a server accepts it where memory is plenty, bytes.
_LIMIT = 16 * _MIB
#: More than this no server may use, bytes.
_TOO_MUCH = 2**31
_ANSWERS = "answers to the attacker"
_LOOK_EVERY_S = 0.02
#: For a call of the other client.
_DEADLINE_S = 10.0


@dataclass(frozen=True)
class AttackResult:
    """The outcome of an attack.

    Attributes:
        attack: its name.
        server: its name.
        sent_mib: bytes that the attacker sent.
        rest_mib: memory of the server before, that belongs to no file.
        most_mib: the most of it.
        killed: for using too much.
        died: workers that ended by themselves.
        cpu_s: of the server, from the first byte of the attack to its end.
        answers: to the attacker, by status.
        answered: calls of another client, from the first byte of the attack to its end.
        failed: calls of it that were not.
        p99_ms: of those answered; 0 if there are none.
        longest_ms: likewise.
        calls_per_s: answered.
    """

    attack: str
    server: str
    sent_mib: float
    rest_mib: float
    most_mib: float
    killed: bool
    died: int
    cpu_s: float
    answers: dict[str, int]
    answered: int
    failed: int
    p99_ms: float
    longest_ms: float
    calls_per_s: float


class OtherClient:
    """A client that does no harm, with one call after another on a connection of its own."""

    def __init__(self, address: str, request: bytes) -> None:
        self.latencies_s: list[float] = []
        self.failed = 0
        self._address = address
        self._request = request

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Calls until the block ends; the last answer is waited for."""
        stop = threading.Event()
        caller = threading.Thread(target=self._ask, args=(stop,))
        caller.start()
        try:
            yield
        finally:
            stop.set()
            caller.join()

    def _ask(self, stop: threading.Event) -> None:
        with grpc.insecure_channel(self._address) as channel:
            method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CLASSIFY)
            while not stop.is_set():
                started = time.perf_counter()
                try:
                    method(self._request, timeout=_DEADLINE_S)
                except grpc.RpcError:
                    self.failed += 1
                    stop.wait(_LOOK_EVERY_S)
                else:
                    self.latencies_s.append(time.perf_counter() - started)


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.robustness.abuse", __doc__)
    add_models_option(result)
    result.add_argument(
        "--model", default="mnist", metavar="NAME",
        help="of which the newest version is served [default: mnist]",
    )  # fmt: skip
    result.add_argument(
        "--only", default="", metavar="TEXT", help="attacks with this in their name [default: all]"
    )
    result.add_argument(
        "--against", metavar="REV",
        help="attack this revision of ours too, as git names it, before what is here today",
    )  # fmt: skip
    result.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    return result


def run(arguments: argparse.Namespace) -> None:
    """Start a server for each attack, attack it, stop it; print.

    Raises:
        BenchmarkError: if there is no bundle or no such attack, or a server does not start.
    """
    bundle = Bundle.newest(arguments.models, arguments.model)
    request = Questions.of_pixels(bundle, 1).request(0, 1).SerializeToString()
    every = [*attacks(_LIMIT), *picture_attacks(_LIMIT, _models(arguments.models))]
    chosen = [each for each in every if arguments.only in each.name]
    if not chosen:
        raise BenchmarkError(f"--only: no attack has {arguments.only!r} in its name")
    on = machine(_PACKAGES)
    flags = f"--workers 1 --max-message-bytes {_LIMIT}"
    sources = [Source.today()]
    if arguments.against is not None:
        sources.insert(0, checked_out(arguments.against))
    results = [
        _attacked(
            attack, front if len(sources) == 1 else f"{front}, {source.name}", server, request
        )
        for attack in chosen
        for front in FRONTS
        for source in sources
        for server in [server_of(source, front, bundle.file, flags)]
    ]
    about = {"flags": flags, "model": f"{bundle.model}/{bundle.version}"}
    details = (about["model"], flags, "another client with one call at a time")
    print(heading(on, "server and clients together", details), _table(results), sep="\n\n")
    write_json(arguments.json, on, about, results=results)


def _models(folder: Path) -> dict[Kind, str]:
    """A model of each kind of images that there is, the first by name."""
    found: dict[Kind, str] = {}
    for name in sorted(list_bundles(folder).bundles):
        found.setdefault(Bundle.newest(folder, name).manifest.input.kind, name)
    return found


def _attacked(attack: Attack, front: str, server: ServerProcess, request: bytes) -> AttackResult:
    with reported(server, f", {attack.name}"), server:
        rest = private_bytes(server.root())
        other, watch = OtherClient(server.address, request), MemoryWatch(server.root(), _TOO_MUCH)
        with ExitStack() as stack:
            stack.enter_context(watch.watching())
            stack.enter_context(other.calling())
            before_s = _cpu_s(server)
            started = time.perf_counter()
            attackers = attack.begin(server.address, stack)
            time.sleep(attack.held_s)
            if attack.leaves:
                for each in attackers:
                    each.close()
                time.sleep(attack.held_s)
            took_s = time.perf_counter() - started
            cpu_s = _cpu_s(server) - before_s
            sent = sum(each.sent_bytes for each in attackers)
            answers = Counter(
                _STATUS.get(answer.status, str(answer.status))
                for each in attackers
                for answer in [*each.answers.values()]
                if answer.status is not None
            )
        died = sum("ended with status" in message for message in server.messages())
    latencies_ms = np.array(other.latencies_s) * 1e3
    result = AttackResult(
        attack=attack.name,
        server=front,
        sent_mib=sent / _MIB,
        rest_mib=rest / _MIB,
        most_mib=watch.most / _MIB,
        killed=watch.killed,
        died=0 if watch.killed else died,
        cpu_s=max(0.0, cpu_s),
        answers=dict(answers),
        answered=len(latencies_ms),
        failed=other.failed,
        p99_ms=float(np.percentile(latencies_ms, 99)) if len(latencies_ms) else 0.0,
        longest_ms=float(latencies_ms.max(initial=0.0)),
        calls_per_s=len(latencies_ms) / took_s,
    )
    calls = f"{result.answered} calls in {took_s:.1f} s"
    tell(f"{attack.name}, {front}: {result.most_mib:.0f} MiB, {calls}")
    return result


def _cpu_s(server: ServerProcess) -> float:
    """Of whatever is left of it; the time of a worker that died may be lost."""
    return sum(process_tree(server.root()).values())


def _table(results: list[AttackResult]) -> str:
    header = (
        "attack", "front", "sent MiB", "MiB at rest", "MiB, most", "workers lost",
        "server CPU s", _ANSWERS,
        "another client: calls answered", "failed", "calls/s", "p99 ms", "longest ms",
    )  # fmt: skip
    return grid(header, [list(_cells(one)) for one in results], {"attack", "front", _ANSWERS})


def _cells(one: AttackResult) -> Iterator[str]:
    yield one.attack
    yield one.server
    yield f"{one.sent_mib:.1f}"
    yield f"{one.rest_mib:.0f}"
    yield f"{one.most_mib:.0f}{', killed' if one.killed else ''}"
    yield f"{one.died}"
    yield f"{one.cpu_s:.1f}"
    yield ", ".join(f"{count:,} {name}" for name, count in sorted(one.answers.items())) or "none"
    yield from map(str, (one.answered, one.failed))
    yield f"{one.calls_per_s:.0f}"
    yield f"{one.p99_ms:.1f}"
    yield f"{one.longest_ms:.0f}"


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))
