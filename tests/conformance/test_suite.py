"""The suite accepts a server that keeps to the protocol, and refuses each that does not."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conformance import __main__ as command
from tests.conformance.__main__ import grpc_suite, http_suite, over_grpc, over_http
from tests.conformance.fake_server import MUTATIONS, serving
from tests.conformance.suite import Result, Verdict

LIMIT_S = 5.0

#: Each fault, and the case that has to see it: the front and a part of "GROUP: NAME".
SEEN_BY = [
    ("swaps the answers of two callers", "gRPC", "concurrency: 16 threads, one connection"),
    ("swaps the answers of two callers", "HTTP", "concurrency: 16 threads"),
    ("ignores the datatype", "gRPC", "datatype: another of the same size"),
    ("ignores the datatype", "HTTP", "datatype: one that does not exist"),
    ("ignores the shape", "gRPC", "shape: one axis too few"),
    ("ignores the shape", "HTTP", "shape: negative"),
    ("accepts raw and typed contents together", "gRPC", "raw contents: beside typed ones"),
    ("accepts too many raw contents", "gRPC", "raw contents: one too many"),
    ("loses the id", "gRPC", "ids: repeated"),
    ("loses the id", "HTTP", "ids: repeated"),
    ("answers for an unknown model", "gRPC", "names: unknown model"),
    ("answers for an unknown model", "HTTP", "paths: unknown model"),
    ("answers for an unknown version", "gRPC", "versions: one that does not exist"),
    ("answers for an unknown version", "HTTP", "paths: version 0"),
    ("answers for an unknown output", "gRPC", "names: unknown output"),
    ("answers for an unknown output", "HTTP", "outputs: a name that is unknown"),
    ("lets sizes overflow", "gRPC", "shape: bytes overflow"),
    ("lets sizes overflow", "HTTP", "shape: elements overflow"),
    ("ignores bytes behind the last element", "gRPC", "raw contents: one byte more"),
    ("ignores bytes behind the last element", "HTTP", "binary: bytes: one more"),
    ("states an impossible shape", "gRPC", "metadata: each model"),
    ("states an impossible shape", "HTTP", "metadata: each model"),
    ("states a datatype that is not so", "gRPC", "metadata: answers are as stated"),
    ("says nothing in errors", "gRPC", "datatype: BYTES"),
    ("says nothing in errors", "HTTP", "body: not JSON"),
    ("has a fault of its own", "gRPC", "raw contents: empty"),
    ("has a fault of its own", "HTTP", "data: NaN"),
    ("exchanges the outputs", "gRPC", "infer: raw contents"),
    ("exchanges the outputs", "HTTP", "infer: flat data"),
    ("computes only the first row", "gRPC", "infer: several rows"),
    ("computes only the first row", "HTTP", "infer: several rows"),
    ("ends a stream at the first error", "gRPC", "stream: truncated contents"),
    ("does not answer what is wrong", "gRPC", "shape: a size of -1"),
    ("does not answer what is wrong", "HTTP", "shape: null"),
    ("answers no more after an error", "gRPC", "names: no inputs"),
    ("answers no more after an error", "HTTP", "inputs: empty"),
]


def asked(front: str, addresses: tuple[str, str], only: str, limit_s: float) -> list[Result]:
    if front == "gRPC":
        return list(over_grpc(addresses[0], limit_s=limit_s, only=only))
    return list(over_http(addresses[1], limit_s=limit_s, only=only))


def failures(results: Sequence[Result]) -> list[str]:
    return [
        f"{each.group}: {each.name}: {each.detail}"
        for each in results
        if each.verdict is Verdict.FAILED
    ]


@pytest.mark.parametrize("front", ["gRPC", "HTTP"])
def test_server_that_keeps_to_the_protocol_is_accepted(front: str) -> None:
    with serving() as addresses:
        results = asked(front, addresses, "", LIMIT_S)
    assert failures(results) == []
    assert sum(each.verdict is Verdict.PASSED for each in results) > 150


@pytest.mark.parametrize(("mutation", "front", "case"), SEEN_BY)
def test_fault_is_seen(mutation: str, front: str, case: str) -> None:
    with serving(mutation) as addresses:
        results = asked(front, addresses, case, 1.0)
    assert results, "no such case"
    assert failures(results)


def test_every_fault_of_the_fake_is_looked_for() -> None:
    assert {mutation for mutation, _, _ in SEEN_BY} == set(MUTATIONS)


def test_suite_is_as_large_as_it_says_and_no_name_is_twice() -> None:
    for cases in (grpc_suite(), http_suite()):
        assert len(cases) >= 80
        assert sum(each.malformed for each in cases) >= 60
        names = Counter((each.group, each.name) for each in cases)
        assert [name for name, count in names.items() if count > 1] == []
        assert all(each.source for each in cases)


def test_command_writes_a_table_and_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "results.json"
    with serving("loses the id") as (grpc_address, http_address):
        options = ["--grpc", grpc_address, "--http", http_address, "--json", str(file)]
        status = command.main([*options, "--only", "ids: "])
    shown = capsys.readouterr().out
    assert status == 1
    assert "FAILED gRPC ids: repeated" in shown
    assert "id: expected" in shown
    verdicts = Counter(each["verdict"] for each in json.loads(file.read_text()))
    assert verdicts["failed"] >= 4


def test_command_accepts_what_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as (address, _):
        assert command.main(["--grpc", address, "--only", "health"]) == 0
    assert "FAILED" not in capsys.readouterr().out


def test_command_without_an_answer_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as (address, _):
        pass
    assert command.main(["--grpc", address, "--only", "server live", "--limit", "2"]) == 1
    assert "UNAVAILABLE" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main([])
