"""The options of `convserve bench` beside those of all commands, and their values."""

from __future__ import annotations

import argparse
import math
import os

MOST_CALLERS = 10_000
MOST_CONNECTIONS = 256
DEFAULT_CONNECTIONS = 4
PLOTS = (".png", ".svg")

ABOUT = (
    "Measures how many calls a server answers, and how long they take. Every caller waits for its"
    " answer and calls again; with --rate calls come at equal distances whether the server keeps up"
    " or not, as those of many users do. Each call is first checked with an ordinary client; then"
    " the calls are made again and again by a client of HTTP/2 that needs little of a core, and"
    " each reply's status and size are checked. Exit status 1 if any call failed."
)
EXAMPLES = (
    "convserve bench --server localhost:50051 --callers 64 --seconds 10",
    "convserve bench --rate 2000 --images 4 --format jsonl",
    "convserve bench --model cats-dogs --pictures cats/ --sweep --plot latency.svg",
)


def add_load(command: argparse.ArgumentParser) -> None:
    """Adds what each call holds, how many there are, and for how long."""
    _add_images(command)
    _add_amount(command)


def _add_images(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("images")
    group.add_argument(
        "--images",
        metavar="K",
        type=_count(4096),
        default=1,
        help="images in each call, 1 to 4096 [default: %(default)s]",
    )
    what = group.add_mutually_exclusive_group()
    what.add_argument(
        "--pictures",
        metavar="DIR",
        help="send the pictures of a folder, 64 at most, as files [default: random pixels to a"
        " model of digits, made-up JPEGs of 500x375 to one of photographs]",
    )
    what.add_argument(
        "--pixels", action="store_true", help="send random pixels to a model of photographs too"
    )
    group.add_argument(
        "--seed",
        metavar="N",
        type=_count(2**31, least=0),
        default=0,
        help="of what is random or made up, 0 or more [default: %(default)s]",
    )


def _add_amount(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("load")
    group.add_argument(
        "--callers",
        metavar="N",
        type=_count(MOST_CALLERS),
        default=64,
        help="calls in flight: each caller waits for its answer and calls again; with --rate, the"
        f" most of them; 1 to {MOST_CALLERS} [default: %(default)s]",
    )
    group.add_argument(
        "--rate",
        metavar="CALLS/S",
        type=_number(1e6, "calls a second above 0, at most 1000000"),
        help="calls that are due each second, whether the server keeps up or not; latencies count"
        " from the moment a call was due [default: as many as the callers make]",
    )
    group.add_argument(
        "--sweep",
        action="store_true",
        help="find the most calls a second, then measure at 10 %% to 95 %% of that rate",
    )
    group.add_argument(
        "--connections",
        metavar="N",
        type=_count(MOST_CONNECTIONS),
        default=DEFAULT_CONNECTIONS,
        help="over which the callers are spread; a connection stays with one worker of a server; 1"
        f" to {MOST_CONNECTIONS} [default: %(default)s]",
    )
    group.add_argument(
        "--seconds",
        metavar="S",
        type=_number(86_400, "seconds above 0, at most 86400"),
        default=10.0,
        help="how long is measured, with --sweep at each rate, up to 86400 [default: %(default)g]",
    )
    group.add_argument(
        "--warm-up",
        metavar="S",
        type=_number(3600, "seconds of 0 to 3600", zero=True),
        default=1.0,
        help="how long calls are made before, which do not count, 0 to 3600 [default: %(default)g]",
    )


def add_plot(output: argparse._ArgumentGroup) -> None:
    """Adds the plot to the options of the output."""
    output.add_argument(
        "--plot",
        metavar="FILE",
        type=_plot,
        help="draw latency against load into FILE.png or FILE.svg; with --sweep",
    )


class _count:
    """Accepts integers, up to a largest one."""

    def __init__(self, most: int, least: int = 1) -> None:
        self._most, self._least = most, least

    def __call__(self, text: str) -> int:
        if text.isdecimal() and self._least <= int(text) <= self._most:
            return int(text)
        raise argparse.ArgumentTypeError(
            f"expected an integer of {self._least} to {self._most}, got {text!r}"
        )


class _number:
    """Accepts numbers above 0, up to a largest one; 0 too, if `zero` is set."""

    def __init__(self, most: float, expected: str, *, zero: bool = False) -> None:
        self._most, self._expected, self._zero = most, expected, zero

    def __call__(self, text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan  # For which every comparison is false.
        if 0 < number <= self._most or (self._zero and number == 0):
            return number
        raise argparse.ArgumentTypeError(f"expected {self._expected}, got {text!r}")


def _plot(text: str) -> str:
    if os.path.splitext(text)[1].lower() in PLOTS:
        return text
    raise argparse.ArgumentTypeError(f"expected a name that ends in .png or .svg, got {text!r}")
