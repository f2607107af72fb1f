"""Cases, their verdicts, and the order in which they are run."""

import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

Server = TypeVar("Server")


class Violation(Exception):
    """A server does not keep to the protocol; str() says what was expected, and what it did."""


class NotApplicable(Exception):
    """A case needs what a server does not have; str() says what."""


class Verdict(Enum):
    """How a case ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True)
class Case(Generic[Server]):
    """One thing to check.

    Args:
        group: heading under which it is counted.
        name: what is sent or checked; unique in its group.
        source: section of the specification that says what is right.
        check: does it; raises Violation or NotApplicable.
        malformed: whether what is sent is wrong.
    """

    group: str
    name: str
    source: str
    check: Callable[[Server], None]
    malformed: bool = False


@dataclass(frozen=True)
class Result:
    """How one case ended.

    Args:
        front: "gRPC" or "HTTP".
        group: of the case.
        name: of the case.
        source: of the case.
        malformed: as in the case.
        verdict: how it ended.
        detail: why, unless it passed.
        seconds: how long it lasted.
    """

    front: str
    group: str
    name: str
    source: str
    malformed: bool
    verdict: Verdict
    detail: str
    seconds: float


def run(
    front: str,
    server: Server,
    cases: Iterable[Case[Server]],
    still_right: Callable[[Server], None],
) -> Iterator[Result]:
    """Yields the result of each case.

    Args:
        front: "gRPC" or "HTTP", for the results.
        server: what the cases are given.
        cases: what to check, in this order.
        still_right: asks a good question after each case and raises Violation unless the answer is
            right: a case that leaves the server or the connection harmed fails by it.
    """
    for case in cases:
        began = time.monotonic()
        verdict, detail = Verdict.PASSED, ""
        try:
            case.check(server)
            still_right(server)
        except NotApplicable as reason:
            verdict, detail = Verdict.NOT_APPLICABLE, str(reason)
        except Violation as reason:
            verdict, detail = Verdict.FAILED, str(reason)
        yield Result(
            front, case.group, case.name, case.source, case.malformed, verdict, detail,
            time.monotonic() - began,
        )  # fmt: skip


def changed(data: bytes, seed: int) -> bytes:
    """Bytes with one to four changes, which the seed decides: mostly near the beginning."""
    chance = random.Random(seed)
    result = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        index = chance.randrange(len(result) if chance.random() < 0.3 else min(len(result), 120))
        kind = chance.randrange(4)
        if kind == 0:
            result[index] = chance.randrange(256)
        elif kind == 1:
            result[index] ^= 1 << chance.randrange(8)
        elif kind == 2:
            del result[index : index + chance.choice((1, 2, 8))]
        else:
            result[index:index] = chance.randbytes(chance.choice((1, 2, 9)))
        result = result or bytearray(1)
    return bytes(result)


def expect(true: bool, field: str, expected: object, got: object) -> None:
    """Raises Violation unless something is true.

    Args:
        true: what has to be.
        field: what was looked at.
        expected: what it has to be.
        got: what it is.
    """
    if not true:
        raise Violation(f"{field}: expected {expected}, got {shortened(got)}")


def shortened(value: object) -> str:
    """A value as a text of one line, of at most 160 characters."""
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= 160 else f"{text[:157]}..."
