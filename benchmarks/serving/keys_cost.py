"""Measures what keys cost a call: the check alone, and processor time of whole calls beside none.

    python -m benchmarks.serving.keys_cost --models models --model mnist

The check runs in this process, on one thread, with the header fields of a call as the native front
has them; the least of several spans counts. Whole calls go to servers with that front, in turn: two
without keys, whose difference is chance, one with a key, and one with a key that has a rate. Tables
go to standard output as Markdown, progress to standard error.
"""

import argparse
import hashlib
import mmap
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.answers import CLASSIFY, Questions
from benchmarks.harness.bundles import Bundle
from benchmarks.harness.client import WireQuestions
from benchmarks.harness.command import (
    add_run_options,
    add_server_options,
    execute,
    new_parser,
    whole,
)
from benchmarks.harness.meter import Meter, Subject, choose_driver, measurements, running
from benchmarks.harness.processes import ServerProcess
from benchmarks.harness.report import heading_of_load, machine, write_json
from benchmarks.harness.servers import ours
from benchmarks.harness.table import Cell, grid, markdown, rows
from benchmarks.harness.wire_formats import ConvserveV1
from convserve_server.protocols.base import Call, Caller, Failure, Metadata, header_in
from convserve_server.protocols.key_check import KeyCheck
from convserve_server.security.keys import read_keys
from convserve_server.security.rates import Rates, rates_bytes

_PACKAGES = ("convserve", "onnxruntime", "pygrpc-native")
_TOKEN = "x" * 43
_HEADER = ("authorization", f"Bearer {_TOKEN}")
_HEADERS: Metadata = (
    ("te", "trailers"),
    ("user-agent", "grpc-python/1.85.1 grpc-c/52.0.0 (linux; chttp2)"),
    _HEADER,
)
_SPAN_CALLS, _SPANS = 20_000, 9

#: More fields of the key, by what the table calls it.
_KINDS = {
    "a key": "",
    "a key of some models": 'models = ["other", "mnist*"]',
    "a key with a rate": "rate = 1e9",
    "a key with a rate and a quota": "rate = 1e9\nquota_per_day = 9000000000",
}
_SERVED = ("a key", "a key with a rate")


@dataclass(frozen=True)
class Check:
    """What a check costs.

    Attributes:
        kind: of key.
        us_a_call: processor time, µs.
    """

    kind: str
    us_a_call: float


class _Call(Call):
    """A call as of the native front, which nobody answers."""

    __slots__ = ()

    def caller(self) -> Caller:
        return Caller(self.connection, _HEADERS)

    def header(self, name: str) -> str | bytes | None:
        return header_in(_HEADERS, name)

    def send(self, payload: bytes) -> bool:
        raise NotImplementedError

    def send_failure(self, failure: Failure) -> None:
        raise NotImplementedError


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.serving.keys_cost", __doc__)
    add_server_options(result)
    result.add_argument(
        "--model", default="mnist", metavar="NAME",
        help="of which the newest version is served [default: mnist]",
    )  # fmt: skip
    result.add_argument(
        "--callers", type=whole(1), default=64, metavar="N", help="of whole calls [default: 64]"
    )
    add_run_options(result, rounds=5, measured="server")
    return result


def keys_file(fields: str) -> str:
    """Returns the text of a file with one key, and 99 others."""
    digests = [hashlib.sha256(_TOKEN.encode()), *(hashlib.sha256(b"%d" % n) for n in range(99))]
    tables = [
        f'[[key]]\nname = "key-{number}"\nsha256 = "{digest.hexdigest()}"\n{fields}\n'
        for number, digest in enumerate(digests)
    ]
    return "\n".join(tables)


def check_us(fields: str, payload: bytes) -> float:
    """Returns what the check of a key costs a call, beyond a handler that does nothing, µs."""
    rates = Rates(mmap.mmap(-1, rates_bytes()))
    rates.prepare()
    table = read_keys(keys_file(fields))
    rates.reserve(table.keys)
    key_check = KeyCheck(table, rates)
    calls = [_Call(CLASSIFY, payload, None, "peer") for _ in range(_SPAN_CALLS)]

    def span_us(handle: object) -> float:
        for call in calls:
            call.access = None
        begin = time.process_time()
        for call in calls:
            handle(call)  # type: ignore[operator]  # A function of a call.
        return (time.process_time() - begin) / len(calls) * 1e6

    def nothing(_: Call) -> None:
        pass

    guarded = key_check.unary(CLASSIFY, nothing)
    bare = min(span_us(nothing) for _ in range(_SPANS))
    return min(span_us(guarded) for _ in range(_SPANS)) - bare


def servers_of(bundle: Bundle, flags: str, folder: Path) -> list[tuple[ServerProcess, str]]:
    """Returns the servers, and what the table calls each; the baseline first."""
    found: list[tuple[ServerProcess, str]] = []
    for name, fields in (
        ("no keys", None),
        ("no keys, again", None),
        *((name, _KINDS[name]) for name in _SERVED),
    ):
        more = ""
        if fields is not None:
            file = folder / f"{len(found)}.toml"
            file.write_text(keys_file(fields))
            more = f" --keys {file}"
        (_, native) = ours(bundle.file, f"{flags}{more}")
        found.append((native, name))
    return found


def run(arguments: argparse.Namespace) -> None:
    """Measure the check, start the servers, measure, stop them, print.

    Raises:
        BenchmarkError: see Meter.measure, Bundle.newest and choose_driver.
    """
    bundle = Bundle.newest(arguments.models, arguments.model)
    meter = Meter(choose_driver(arguments.driver), arguments.connections, arguments.seconds)
    on = machine(_PACKAGES)
    cell = Cell(arguments.callers, 1)
    asked = Questions.of_pixels(bundle, 8)
    keyed = WireQuestions.of(ConvserveV1(asked.model, headers=(_HEADER,)), asked)
    payload = keyed.call(0, 1).body
    checks = [Check(kind, check_us(fields, payload)) for kind, fields in _KINDS.items()]
    with tempfile.TemporaryDirectory(prefix="convserve-keys-") as folder:
        subjects = [
            Subject(server, keyed, name)
            for server, name in servers_of(bundle, arguments.flags, Path(folder))
        ]
        with running(subjects):
            measured = list(measurements(meter, subjects, [cell], arguments.rounds))
    about = meter.about(bundle, arguments.rounds)
    table = grid(
        ("key", "µs a call"), [(one.kind, f"{one.us_a_call:.2f}") for one in checks], {"key"}
    )
    whole_calls = rows(measured, subjects[0].name)
    print(heading_of_load(on, about), table, markdown(whole_calls), sep="\n\n")
    write_json(arguments.json, on, about, checks=checks, measurements=measured, rows=whole_calls)


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))
