"""The command `convserve`: asks a server from a terminal."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import textwrap
from collections.abc import Callable, Sequence
from importlib.metadata import version

from convserve.classify_command import classify
from convserve.errors import ConvserveError, InvalidRequest
from convserve.server_commands import health, models
from convserve.settings import (
    DEFAULT_SERVER,
    DEFAULT_TIMEOUT_S,
    checked_server,
    checked_timeout_s,
)
from convserve.terminal import printable

SERVER_VARIABLE = "CONVSERVE_SERVER"
DEFAULT_IN_FLIGHT = 16
MOST_IN_FLIGHT = 256


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: Its arguments; None: those of the process.

    Returns:
        The exit status: 0 done, 1 failed (a line on stderr says why), 130 interrupted, 141 if
        nobody reads the output any more. Wrong usage exits with 2 by SystemExit.
    """
    try:
        # No terminal that knows fewer characters shall cost an answer.
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
        arguments = _parser().parse_args(argv)
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except ConvserveError as error:
        print(f"convserve: {printable(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The interpreter flushes stdout once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="convserve",
        description="Asks a Convserve server what is in pictures.",
        epilog=_examples(
            "convserve classify seven.png",
            "convserve models --server gpu1:50051 --format jsonl",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"convserve {version('convserve')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_classify(commands)
    _add_models(commands)
    _add_health(commands)
    return parser


# argparse has no public name for what add_subparsers returns.
_Commands = argparse._SubParsersAction


def _add_classify(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "classify",
        classify,
        "Says what is on each picture, in the order in which they are named. Of a folder all JPEGs"
        " are taken, and those in its folders; for a model of digits PNGs as well. A file that"
        " cannot be used is told in its row, and the others are answered. Photographs go to the"
        " server as they are. Digits are centred here as MNIST's are; a file that is named may be"
        " any that Pillow reads, dark on light or light on dark.",
        "convserve classify holiday/ cat.jpg --model cats-dogs --format jsonl > answers.jsonl",
        "convserve classify --show --model mnist --top-k 3 - < seven.png",
    )
    command.add_argument(
        "files",
        metavar="PATH",
        nargs="+",
        help="a picture, or a folder of pictures; - reads a picture from standard input",
    )
    model = command.add_argument_group("model")
    model.add_argument(
        "--model", metavar="NAME", help="name of the model [default: the only one of the server]"
    )
    model.add_argument(
        "--version",
        metavar="N",
        type=_positive,
        dest="model_version",
        help="its version, 1 or more [default: the newest]",
    )
    output = _output(command)
    output.add_argument(
        "--top-k",
        metavar="K",
        type=_positive,
        help="the K most probable classes, 1 to their number [default: the most probable one]",
    )
    output.add_argument("--show", action="store_true", help="draw the digit as the model sees it")
    output.add_argument(
        "--no-progress",
        action="store_false",
        dest="progress",
        help="draw no progress bar [default: drawn if stderr is a terminal and stdout is not]",
    )
    server = _server(command)
    server.add_argument(
        "--in-flight",
        metavar="N",
        type=_in_flight,
        default=DEFAULT_IN_FLIGHT,
        help=f"files sent and not yet answered, 1 to {MOST_IN_FLIGHT} [default: %(default)s]",
    )


def _add_models(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "models",
        models,
        "Lists the models that the server has loaded.",
        "convserve models",
        "convserve models --server gpu1:50051 --format jsonl",
    )
    _output(command)
    _server(command)


def _add_health(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "health",
        health,
        "Says whether the server answers calls: exit status 0 if it does, 1 if not.",
        "convserve health",
        "convserve health convserve.v1.Classifier --timeout 2",
    )
    command.add_argument(
        "service",
        metavar="SERVICE",
        nargs="?",
        default="",
        help="name of one service [default: the server as a whole]",
    )
    _output(command)
    _server(command)


def _command(
    commands: _Commands[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    description: str,
    *examples: str,
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=description.split(":")[0].split(".")[0],
        description=textwrap.fill(description, 80),
        epilog=_examples(*examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(run=run)
    return command


def _output(command: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    group = command.add_argument_group("output")
    group.add_argument(
        "--format",
        choices=("table", "jsonl"),
        default="table",
        help="jsonl prints one JSON object a line [default: %(default)s]",
    )
    return group


def _server(command: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    group = command.add_argument_group("server")
    group.add_argument(
        "--server",
        metavar="HOST:PORT",
        type=_address,
        # A string, so that argparse checks the variable's value as it checks the flag's.
        default=os.environ.get(SERVER_VARIABLE, DEFAULT_SERVER),
        help=f"where it listens [default: {DEFAULT_SERVER}] [env: {SERVER_VARIABLE}]",
    )
    group.add_argument(
        "--timeout",
        metavar="S",
        type=_seconds,
        default=DEFAULT_TIMEOUT_S,
        help="longest wait for the answer, in seconds [default: %(default)g]",
    )
    return group


def _address(text: str) -> str:
    try:
        return checked_server(text)
    except InvalidRequest as error:
        raise argparse.ArgumentTypeError(error.violations[0].description) from error


def _seconds(text: str) -> float:
    try:
        return checked_timeout_s(float(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"was {text!r}; seconds above 0 are taken") from error


def _positive(text: str) -> int:
    if text.isdecimal() and int(text) >= 1:
        return int(text)
    raise argparse.ArgumentTypeError(f"was {text!r}; an integer of 1 or more is taken")


def _in_flight(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) <= MOST_IN_FLIGHT:
        return int(text)
    raise argparse.ArgumentTypeError(f"was {text!r}; 1 to {MOST_IN_FLIGHT} is taken")


def _examples(*commands: str) -> str:
    return "examples:\n" + "\n".join(f"  {command}" for command in commands)


if __name__ == "__main__":
    sys.exit(main())
