"""Every server behind a name, each asked by itself: a call alone would reach one of them."""

from __future__ import annotations

import argparse
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from convserve.address import endpoints
from convserve.command.connection_options import connect, tls_of
from convserve.command.terminal_text import printable
from convserve.command.watching import Seen
from convserve.errors import ConvserveError, ServerUnavailable

PAUSE_S = 0.5
"""Between two looks at all of them."""

_AT_A_TIME = 32


@dataclass(frozen=True)
class Replica:
    """One server of several that serve the same.

    Attributes:
        address: HOST:PORT of it alone.
        seen: What it has loaded and refused; None if it gave no answer.
        error: Why it gave none.
    """

    address: str
    seen: Seen | None
    error: str = ""

    def lacks(self, model: str, version: int) -> str:
        """Returns why it cannot serve a version; empty if it can."""
        if self.seen is None:
            return self.error
        there = [one.version for one in self.seen.models if one.name == model]
        if version in there:
            return ""
        for one in self.seen.refused:
            if (one.name, one.version) == (model, version):
                return f"{model}/{version} is refused: {one.reason}"
        loaded = ", ".join(f"{model}/{one}" for one in there) or f"no version of {model}"
        return f"{model}/{version} is not loaded; there is {loaded}"

    def strays(self, model: str, label: str, version: int | None) -> str:
        """Returns which other version has a label; empty if the right one has it."""
        if self.seen is None:
            return self.error
        there = [one.version for one in self.seen.models if one.name == model]
        having = [
            one.version
            for one in self.seen.models
            if one.name == model and label in one.version_labels
        ]
        if having == ([] if version is None else [version]):
            return ""
        if not there:
            return f"no version of {model} is loaded"
        return f"{label} is {having[0]}" if having else f"no version has the label {label}"


def addresses(fleet: Sequence[str]) -> list[tuple[str, str]]:
    """Returns where each server listens, and the name of its host, each server once.

    A name stands for all addresses that it has now. Where these are of both families, as in
    clusters in which each server has one of each, only those of IPv4 count.

    Args:
        fleet: Addresses as validate_server() allows them, several of each.

    Raises:
        ServerUnavailable: A name has no address.
    """
    found: dict[str, str] = {}
    for server in fleet:
        if not endpoints(server):  # A Unix socket, or what gRPC alone can resolve.
            found.setdefault(server, "")
        for host, port in endpoints(server):
            for address in _resolved(host, port):
                found.setdefault(address, host)
    return list(found.items())


def ask(arguments: argparse.Namespace) -> list[Replica]:
    """Returns what every server of --fleet has, in the order of their addresses.

    Raises:
        ConvserveError: A name has no address, or the options are not valid.
    """
    servers = addresses(arguments.fleet)
    with ThreadPoolExecutor(min(_AT_A_TIME, len(servers))) as pool:
        return list(pool.map(lambda one: _ask_one(arguments, *one), servers))


def ask_until(
    arguments: argparse.Namespace,
    problem: Callable[[Replica], str],
    waited_for: str,
    stop: threading.Event | None = None,
) -> list[str]:
    """Asks all servers until none has a problem, for --wait seconds at most.

    Args:
        arguments: Of the command.
        problem: Returns what a server lacks; empty if nothing.
        waited_for: For people, what all servers are to do.
        stop: Ends the wait when it is set.

    Returns:
        The problems that are left, as "HOST:PORT: ...".

    Raises:
        ConvserveError: See ask; where a name has no address, when the time is over.
    """
    stop = stop or threading.Event()
    end = time.monotonic() + arguments.wait
    stated = ""
    while True:
        try:
            replicas = ask(arguments)
            problems = [f"{one.address}: {problem(one)}" for one in replicas if problem(one)]
        except ServerUnavailable as error:
            if time.monotonic() >= end or stop.is_set():
                raise
            replicas, problems = [], [error.message]
        left_s = end - time.monotonic()
        if not problems or left_s <= 0 or stop.is_set():
            return problems
        lacking = f"waiting until all servers {waited_for}, {arguments.wait:g} s at most: "
        lacking += problems[0] + (f" (and {len(problems) - 1} more)" if problems[1:] else "")
        if lacking != stated:
            print(printable(lacking), file=sys.stderr, flush=True)
        stated = lacking
        stop.wait(min(PAUSE_S, left_s))


def _ask_one(arguments: argparse.Namespace, address: str, host: str) -> Replica:
    given = {"server": address}
    tls = tls_of(arguments)
    if host and tls is not None and tls.server_name is None:
        # Certificates are for names; here it is an address that is connected to.
        given["tls_server_name"] = host
    try:
        with connect(argparse.Namespace(**{**vars(arguments), **given})) as client:
            return Replica(address, Seen.by(client))
    except ConvserveError as error:
        return Replica(address, None, error.message)


def _resolved(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ServerUnavailable(
            f"fleet: expected a name with addresses, got {host}: {why}"
        ) from error
    by_family = {
        family: [str(address[0]) for each, *_, address in found if each == family]
        for family in (socket.AF_INET, socket.AF_INET6)
    }
    v4, v6 = by_family[socket.AF_INET], by_family[socket.AF_INET6]
    return sorted({f"{one}:{port}" for one in v4} or {f"[{one}]:{port}" for one in v6})
