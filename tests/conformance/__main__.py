"""The command: python -m tests.conformance --grpc HOST:PORT --http HOST:PORT."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from tests.conformance import (
    grpc_cases,
    grpc_frames,
    grpc_malformed,
    grpc_streams,
    http_cases,
    http_malformed,
    report,
)
from tests.conformance.grpc_server import GrpcServer
from tests.conformance.http_server import HttpServer
from tests.conformance.suite import Case, Result, Server, Verdict, run
from tests.conformance.tensors import DATATYPES

#: Models that are looked for unless others are named.
NAMES = ("simple", *(f"identity_{datatype.lower()}" for datatype in DATATYPES))
_LIMIT_S = 10.0
_ABOUT = "Checks whether a server keeps to the Open Inference Protocol, version 2."


def grpc_suite() -> list[Case[GrpcServer]]:
    """All cases over gRPC."""
    files = (grpc_cases, grpc_malformed, grpc_frames, grpc_streams)
    return list(chain.from_iterable(each.cases() for each in files))


def http_suite() -> list[Case[HttpServer]]:
    """All cases over HTTP."""
    return list(chain(http_cases.cases(), http_malformed.cases()))


def over_grpc(
    address: str,
    names: Sequence[str] = NAMES,
    limit_s: float = _LIMIT_S,
    pictures: str | None = None,
    only: str = "",
) -> Iterator[Result]:
    """Yields the results of all cases over gRPC.

    Args:
        address: HOST:PORT.
        names: models to look for.
        limit_s: for each call.
        pictures: a model that accepts encoded images as BYTES.
        only: a part of "GROUP: NAME" of the cases to run; empty: all.
    """
    server = GrpcServer(address, limit_s, names, pictures)
    try:
        yield from run("gRPC", server, _chosen(grpc_suite(), only), GrpcServer.still_right)
    finally:
        server.close()


def over_http(
    address: str, names: Sequence[str] = NAMES, limit_s: float = _LIMIT_S, only: str = ""
) -> Iterator[Result]:
    """Yields the results of all cases over HTTP; arguments as of over_grpc()."""
    server = HttpServer(address, limit_s, names)
    try:
        yield from run("HTTP", server, _chosen(http_suite(), only), HttpServer.still_right)
    finally:
        server.close()


def _chosen(cases: list[Case[Server]], only: str) -> list[Case[Server]]:
    return [each for each in cases if only in f"{each.group}: {each.name}"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 1 if a case failed, 2 if none applies."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=_ABOUT)
    parser.add_argument("--grpc", metavar="HOST:PORT", help="where the server answers gRPC")
    parser.add_argument("--http", metavar="HOST:PORT", help="where the server answers HTTP")
    parser.add_argument("--model", action="append", metavar="NAME",
                        help="a model to look at; again for more (default: simple, identity_fp32, "
                        "and identity_ with each other datatype)")  # fmt: skip
    parser.add_argument("--pictures", metavar="NAME",
                        help="a model that accepts encoded images as BYTES")  # fmt: skip
    parser.add_argument("--only", default="", metavar="TEXT",
                        help='a part of "GROUP: NAME" of the cases to run')  # fmt: skip
    parser.add_argument("--limit", type=float, default=_LIMIT_S, metavar="S",
                        help="for each answer (default: %(default)g)")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results there as well")
    given = parser.parse_args(arguments)
    if not given.grpc and not given.http:
        parser.error("--grpc or --http: expected an address, got none")
    names = given.model or NAMES
    results: list[Result] = []
    if given.grpc:
        results += over_grpc(given.grpc, names, given.limit, given.pictures, given.only)
    if given.http:
        results += over_http(given.http, names, given.limit, given.only)
    report.show(results, sys.stdout)
    if given.json:
        given.json.write_text(report.to_json(results))
    if any(each.verdict is Verdict.FAILED for each in results):
        return 1
    if not any(each.verdict is Verdict.PASSED for each in results):
        print("no case applies: is the address right, and is there a model that the suite knows?")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
