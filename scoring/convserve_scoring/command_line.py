"""The command line of convserve-score."""

import argparse
from collections.abc import Callable
from typing import TypeAlias

from convserve_host.arguments import ArgumentParser, add_print_completion
from convserve_scoring import commands

Subparsers: TypeAlias = "argparse._SubParsersAction[ArgumentParser]"

EXAMPLES = """examples:
  convserve-score plan pictures --model models/photos --target scored
  convserve-score run scored && convserve-score check scored
"""
PLAN_EXAMPLES = """examples:
  convserve-score plan pictures --model models/photos --target scored
  convserve-score plan shards --model models/photos/3 --target scored --bytes-column jpeg
"""
RUN_EXAMPLES = """examples:
  convserve-score run scored
  convserve-score run scored --index $JOB_COMPLETION_INDEX --of 50
"""
CHECK_EXAMPLES = """examples:
  convserve-score check scored
  convserve-score run scored --retry-failed && convserve-score check scored
"""
#: A day.
_MOST_SECONDS = 86_400
TARGET_HELP = "folder with the plan, that all workers see"


def parser() -> ArgumentParser:
    """Returns the definition of the command line; what it parses has `command`, a function."""
    program = ArgumentParser(
        prog="convserve-score",
        description="Have a model answer for every image of a folder, in shards.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    program.add_argument(
        *("-V", "--version"),
        action=_Version,
        nargs=0,
        help="show program's version number and exit",
    )
    add_print_completion(program)
    subparsers = program.add_subparsers(required=True, metavar="COMMAND")
    _add_plan(subparsers)
    _add_run(subparsers)
    _add_check(subparsers)
    return program


def _add_plan(subparsers: Subparsers) -> None:
    command = _add(
        subparsers,
        "plan",
        "list the images once, pack loose files into shards, fix the model and its version",
        PLAN_EXAMPLES,
        commands.plan,
    )
    command.add_argument(
        "source",
        metavar="DIR",
        help="folder of JPEG, PNG, WebP and GIF files at any depth, or of Parquet files with paths "
        "and bytes",
    )
    command.add_argument(
        "--target",
        metavar="DIR",
        required=True,
        help="folder for the plan and the rows, new or without a plan",
    )
    command.add_argument(
        "--model",
        metavar="PATH",
        required=True,
        help="folder of a model, whose newest version answers, or of a version; it is copied",
    )
    group = command.add_argument_group("shards")
    group.add_argument(
        "--shard-images",
        metavar="COUNT",
        type=int,
        default=5000,
        help="images of a shard that is packed, 1 to 10,000 [default: %(default)s]",
    )
    group.add_argument(
        "--path-column",
        metavar="NAME",
        default="path",
        help="column of Parquet files that names the images [default: %(default)s]",
    )
    group.add_argument(
        "--bytes-column",
        metavar="NAME",
        default="bytes",
        help="column of Parquet files with the image files [default: %(default)s]",
    )
    group = command.add_argument_group("engine")
    group.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where the model runs; auto: on a GPU if there is one [default: %(default)s]",
    )
    group.add_argument(
        "--batch",
        metavar="COUNT",
        type=_positive,
        default=16,
        help="images that are run together, 1 or more [default: %(default)s]",
    )
    group.add_argument(
        "--hang-s",
        metavar="S",
        type=_seconds,
        default=600.0,
        help="a process that reads, scores or writes for so long without an end to it, as one that "
        "hangs, ends itself, and the shard is begun again; 0: never [default: %(default)g]",
    )


def _add_run(subparsers: Subparsers) -> None:
    command = _add(
        subparsers,
        "run",
        "score the shards that have no rows yet",
        RUN_EXAMPLES,
        commands.run,
    )
    command.add_argument("target", metavar="DIR", help=TARGET_HELP)
    command.add_argument(
        "--engine",
        choices=("local", "ray", "dask"),
        default="local",
        help="local: processes of this machine [default: %(default)s]",
    )
    command.add_argument(
        "--workers",
        metavar="COUNT",
        type=_positive,
        default=0,
        help="processes on this machine [default: one for each CPU, as memory allows]",
    )
    command.add_argument(
        "--address",
        metavar="ADDRESS",
        default="",
        help="of a Ray cluster or a Dask scheduler [default: one is started on this machine]",
    )
    group = command.add_argument_group("a part of the shards")
    group.add_argument(
        "--index",
        metavar="NUMBER",
        type=int,
        default=0,
        help="of this process, 0 or more: it scores each --of-th shard [default: %(default)s]",
    )
    group.add_argument(
        "--of",
        metavar="COUNT",
        type=int,
        default=1,
        help="such processes, each with another index [default: %(default)s]",
    )
    command.add_argument(
        "--retry-failed",
        action="store_true",
        help="begin failed shards again, as often as new ones",
    )


def _add_check(subparsers: Subparsers) -> None:
    command = _add(
        subparsers,
        "check",
        "compare rows and plan: what is lost, repeated or failed; exit status 3 if anything is",
        CHECK_EXAMPLES,
        commands.check,
    )
    command.add_argument("target", metavar="DIR", help=TARGET_HELP)


def _add(
    subparsers: Subparsers,
    name: str,
    summary: str,
    epilog: str,
    function: Callable[[argparse.Namespace], int],
) -> ArgumentParser:
    command = subparsers.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(command=function)
    return command


class _Version(argparse.Action):
    """Prints the version; looks it up no sooner."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"convserve-score {version('convserve')}")
        parser.exit()


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"expected 0 to {_MOST_SECONDS:,}, got {text!r}")
    return seconds


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text!r}")
    return int(text)
