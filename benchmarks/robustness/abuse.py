"""Measures how much memory an abusive client makes a server use, and what other clients get.

    python -m benchmarks.robustness.abuse --models models
    python -m benchmarks.robustness.abuse --against v0.1.0

Each attack meets a new server of one worker, as one that other machines reach: 0.0.0.0, --insecure.
It is made by a process on a CPU of its own, sent as far as the server accepts it, and then held.
Meanwhile another client sends 100 calls a second with a deadline of a second each. A server that
uses 2 GiB is killed, and its row says so.
"""

import argparse
import functools
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness.answers import Questions
from benchmarks.harness.bundles import Bundle
from benchmarks.harness.command import BenchmarkError, add_models_option, execute, new_parser, tell
from benchmarks.harness.memory import MemoryWatch, private_bytes
from benchmarks.harness.meter import reported
from benchmarks.harness.ports import free_port
from benchmarks.harness.processes import ServerProcess, process_tree
from benchmarks.harness.report import heading, machine, write_json
from benchmarks.harness.revisions import Source, checked_out
from benchmarks.harness.servers import FRONTS, server_of
from benchmarks.harness.table import grid
from benchmarks.robustness.attack import Attack, AttackProcess, own_cpu
from benchmarks.robustness.attacks import attacks
from benchmarks.robustness.http_attacks import http_attacks
from benchmarks.robustness.picture_attacks import Kind, picture_attacks
from benchmarks.robustness.steady_caller import SteadyCaller, over_grpc, over_http
from convserve_bundle.folder import list_bundles

_PACKAGES = ("convserve", "grpcio", "onnxruntime", "pygrpc-native")
_MIB = 2**20
#: The largest message, as a server accepts it where memory is plenty, bytes.
_LIMIT = 16 * _MIB
#: As variables: a revision that does not know one goes on without it.
_ENVIRON = {
    "CONVSERVE_HOST": "0.0.0.0",
    "CONVSERVE_INSECURE": "1",
    "CONVSERVE_MAX_RECEIVED_BYTES": str(64 * _MIB),
    "CONVSERVE_MAX_STREAM_BYTES": str(64 * _MIB),
}
#: More than this no server may use, bytes.
_TOO_MUCH = 2**31
_ANSWERS = "answers to the attacker"
#: For the other client before the attack, s.
_BEFORE_S = 0.5


@dataclass(frozen=True)
class AttackResult:
    """The outcome of an attack.

    Attributes:
        attack: its name.
        server: its name.
        sent_mib: bytes that the attacker sent.
        rest_mib: memory of the server before, that belongs to no file.
        most_mib: the most of it.
        allowed_mib: that it may be.
        killed: for using too much.
        died: workers that ended by themselves.
        cpu_s: of the server, from the first byte of the attack to its end.
        answers: to the attacker, by status.
        calls: of another client.
        answered: of them, within their deadline.
        p99_ms: of those answered; 0 if there are none.
        longest_ms: likewise.
    """

    attack: str
    server: str
    sent_mib: float
    rest_mib: float
    most_mib: float
    allowed_mib: float
    killed: bool
    died: int
    cpu_s: float
    answers: dict[str, int]
    calls: int
    answered: int
    p99_ms: float
    longest_ms: float


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
        "--front", action="append", choices=FRONTS, help="only this one; may be repeated"
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
    every = _attacks(_LIMIT, arguments.models)
    chosen = [each for each in every if arguments.only in each.name]
    if not chosen:
        raise BenchmarkError(f"--only: no attack has {arguments.only!r} in its name")
    on = machine(_PACKAGES)
    flags = f"--workers 1 --max-message-bytes {_LIMIT}"
    sources = [Source.today()]
    if arguments.against is not None:
        sources.insert(0, checked_out(arguments.against))
    with own_cpu() as cpus:
        results = [
            _attacked(attack, name, (source, front, bundle, flags), cpus)
            for attack in chosen
            for front in arguments.front or FRONTS
            for source in sources
            for name in [front if len(sources) == 1 else f"{front}, {source.name}"]
        ]
    about = {"flags": flags, "model": f"{bundle.model}/{bundle.version}", "variables": _ENVIRON}
    details = (
        f"{bundle.model}/{bundle.version}",
        flags,
        *(f"{name}={value}" for name, value in _ENVIRON.items()),
    )
    print(heading(on, "server and clients together", details), _table(results), sep="\n\n")
    write_json(arguments.json, on, about, results=results)


def _attacks(limit: int, models: Path) -> list[Attack]:
    return [*attacks(limit), *picture_attacks(limit, _models(models)), *http_attacks(limit)]


def find_attack(limit: int, models: Path, name: str) -> Attack:
    """Returns the attack of a name; see run()."""
    return next(each for each in _attacks(limit, models) if each.name == name)


def _models(folder: Path) -> dict[Kind, str]:
    """A model of each kind of images that there is, the first by name."""
    found: dict[Kind, str] = {}
    for name in sorted(list_bundles(folder).bundles):
        found.setdefault(Bundle.newest(folder, name).manifest.input.kind, name)
    return found


def _attacked(
    attack: Attack,
    name: str,
    served: tuple[Source, str, Bundle, str],
    cpus: Collection[int],
) -> AttackResult:
    source, front, bundle, flags = served
    http = f"127.0.0.1:{free_port()}"
    flags = f"{flags} --http-port {http.rpartition(':')[2]}"
    environ = source.environ | _ENVIRON
    server = server_of(source, front, bundle.file, flags, environ=environ)
    with reported(server, f", {attack.name}"), server:
        questions = Questions.of_pixels(bundle, 1)
        request = questions.request(0, 1)
        if attack.port == "http":
            address = http
            connect = functools.partial(over_http, http, _http_request(bundle))
        else:
            address = server.address
            connect = functools.partial(over_grpc, address, request.SerializeToString())
        models = bundle.file.parents[2]
        attacker = AttackProcess(find_attack, (_LIMIT, models, attack.name), address, cpus)
        caller, watch = SteadyCaller(connect), MemoryWatch(server.root(), _TOO_MUCH)
        with ExitStack() as stack:
            stack.enter_context(caller.calling())
            time.sleep(_BEFORE_S)
            rest = private_bytes(server.root())
            stack.enter_context(watch.watching())
            before_s = _cpu_s(server)
            sent = attacker.make()
            cpu_s = _cpu_s(server) - before_s
        died = sum("ended with status" in message for message in server.messages())
    latencies_ms = np.array(caller.latencies_s) * 1e3
    result = AttackResult(
        attack=attack.name,
        server=name,
        sent_mib=sent.size / _MIB,
        rest_mib=rest / _MIB,
        most_mib=watch.most / _MIB,
        allowed_mib=rest / _MIB + attack.most_mib,
        killed=watch.killed,
        died=0 if watch.killed else died,
        cpu_s=max(0.0, cpu_s),
        answers=sent.answers,
        calls=caller.due,
        answered=len(latencies_ms),
        p99_ms=float(np.percentile(latencies_ms, 99)) if len(latencies_ms) else 0.0,
        longest_ms=float(latencies_ms.max(initial=0.0)),
    )
    tell(
        f"{attack.name}, {name}: {result.most_mib:.0f} of {result.allowed_mib:.0f} MiB, "
        f"{result.answered} of {result.calls} calls answered"
    )
    return result


def _http_request(bundle: Bundle) -> bytes:
    """A whole request of HTTP, of one image of zeros."""
    size = bundle.manifest.input
    shape = [1, size.height, size.width, size.channels]
    data = bytes(size.height * size.width * size.channels)
    head = (
        f'{{"inputs":[{{"name":"pixels","datatype":"UINT8","shape":{shape},'
        f'"parameters":{{"binary_data_size":{len(data)}}}}}]}}'
    )
    lines = (
        f"POST /v2/models/{bundle.model}/infer HTTP/1.1",
        "Host: localhost",
        f"Inference-Header-Content-Length: {len(head)}",
        f"Content-Length: {len(head) + len(data)}",
    )
    return "\r\n".join((*lines, "", head)).encode() + data


def _cpu_s(server: ServerProcess) -> float:
    """Of whatever is left of it; the time of a worker that died may be lost."""
    return sum(process_tree(server.root()).values())


def _table(results: list[AttackResult]) -> str:
    header = (
        "attack", "front", "sent MiB", "MiB at rest", "MiB, most", "MiB allowed", "workers lost",
        "server CPU s", _ANSWERS,
        "another client: calls", "answered in 1 s, %", "p99 ms", "longest ms",
    )  # fmt: skip
    return grid(header, [list(_cells(one)) for one in results], {"attack", "front", _ANSWERS})


def _cells(one: AttackResult) -> Iterator[str]:
    yield one.attack
    yield one.server
    yield f"{one.sent_mib:.1f}"
    yield f"{one.rest_mib:.0f}"
    over = ", over" * (one.most_mib > one.allowed_mib)
    yield f"{one.most_mib:.0f}{', killed' if one.killed else over}"
    yield f"{one.allowed_mib:.0f}"
    yield f"{one.died}"
    yield f"{one.cpu_s:.1f}"
    yield ", ".join(f"{count:,} {name}" for name, count in sorted(one.answers.items())) or "none"
    yield f"{one.calls}"
    yield f"{100 * one.answered / max(1, one.calls):.1f}"
    yield f"{one.p99_ms:.1f}"
    yield f"{one.longest_ms:.0f}"


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))
