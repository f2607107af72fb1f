"""What the commands share: options, and how they end."""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn


class BenchmarkError(Exception):
    """The benchmark cannot be run, or its figures would mean nothing; str() says why."""


def new_parser(module: str, about: str) -> argparse.ArgumentParser:
    """A parser without options.

    Args:
        module: after python -m.
        about: the module's docstring, of which the first line is shown.
    """
    return argparse.ArgumentParser(prog=f"python -m {module}", description=about.partition("\n")[0])


def add_run_options(
    parser: argparse.ArgumentParser, rounds: int, measured: str, least: int = 1
) -> None:
    """How often, and where the figures go."""
    parser.add_argument(
        "--rounds", type=whole(least), default=rounds, metavar="N",
        help=f"measurements of each {measured} [default: {rounds}]",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")


def add_models_option(parser: argparse.ArgumentParser) -> None:
    """Where the models are."""
    parser.add_argument(
        "--models", type=Path, default=Path("models"), metavar="DIR",
        help="folder of bundles [default: models]",
    )  # fmt: skip


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """What is served, and how it is driven."""
    add_models_option(parser)
    add_load_options(parser)
    parser.add_argument(
        "--flags", default="", metavar="FLAGS",
        help="more flags for convserve-serve, as '--workers 1 --engine-threads 2'",
    )  # fmt: skip


def add_load_options(parser: argparse.ArgumentParser) -> None:
    """How servers are driven."""
    parser.add_argument(
        "--seconds", type=_seconds, default=2.0, metavar="S",
        help="length of a measurement, from 0.05 [default: 2]",
    )  # fmt: skip
    parser.add_argument(
        "--driver", choices=("auto", "h2load", "own"), default="auto",
        help="what makes the calls; auto: h2load where it is installed [default: auto]",
    )  # fmt: skip
    parser.add_argument(
        "--connections", type=int, choices=(1, 2, 4, 8, 16), default=4,
        help="over which callers are spread; several workers need more [default: 4]",
    )  # fmt: skip


def add_photos_option(parser: argparse.ArgumentParser) -> None:
    """Which photographs."""
    parser.add_argument(
        "--photos", type=Path, metavar="DIR",
        help="folder with JPEGs, at any depth [default: made-up scenes]",
    )  # fmt: skip


def whole(least: int) -> Callable[[str], int]:
    """A type of option: a whole number, at least so large."""

    def number(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"{value} is not at least {least}")
        return value

    return number


def numbers(text: str) -> list[int]:
    """A type of option: whole numbers from 1, with commas between them."""
    return [whole(1)(each) for each in text.split(",")]


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.05 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{value:g} is not within 0.05 to 3600")
    return value


def tell(progress: str) -> None:
    """Report on standard error; standard output is for the tables."""
    print(progress, file=sys.stderr, flush=True)


def execute(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], None]) -> int:
    """Measure.

    Args:
        parser: of the command line.
        run: does it and prints; raises BenchmarkError if it cannot.

    Returns: 0 after a table, 1 after a failure, 130 after Ctrl-C or SIGTERM.
    """
    arguments = parser.parse_args()
    # gRPC goes through a proxy of the environment, even to this machine, where all is measured.
    os.environ["no_grpc_proxy"] = "localhost,127.0.0.1"  # noqa: SIM112
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt_once)
    try:
        run(arguments)
    except (BenchmarkError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted, nothing is left running", file=sys.stderr)
        return 130
    return 0


def _interrupt_once(_number: int, _frame: FrameType | None) -> NoReturn:
    """Another one would cut short the stopping of the servers."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
