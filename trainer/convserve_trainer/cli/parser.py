"""The command line of convserve-train."""

import argparse
from typing import TypeAlias

from convserve_host.arguments import ArgumentParser, add_print_completion
from convserve_trainer.cli import (
    card,
    check_data,
    compare,
    convert,
    drift,
    evaluate,
    explain,
    fit,
    inspect,
    lecture,
    publish,
    recipes,
    sign,
    sweep,
    track,
    verify,
)
from convserve_trainer.cli.command import Command

EXAMPLES = """examples:
  convserve-train fit digits --recipe lecture
  convserve-train inspect models/mnist
"""

#: In the order of the help.
COMMANDS = (
    check_data.COMMAND,
    fit.COMMAND,
    convert.COMMAND,
    publish.COMMAND,
    sweep.COMMAND,
    evaluate.COMMAND,
    compare.COMMAND,
    drift.COMMAND,
    inspect.COMMAND,
    card.COMMAND,
    track.COMMAND,
    sign.COMMAND,
    verify.COMMAND,
    recipes.COMMAND,
    explain.COMMAND,
    lecture.COMMAND,
)

Subparsers: TypeAlias = "argparse._SubParsersAction[ArgumentParser]"


def parser() -> ArgumentParser:
    """Returns the definition of the command line.

    What it parses has `command`, the `Command` that was typed.
    """
    program = ArgumentParser(
        prog="convserve-train",
        description="Train small Keras convnets and publish them as ONNX bundles.",
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
    for command in COMMANDS:
        _add(subparsers, command)
    return program


def _add(subparsers: Subparsers, command: Command) -> None:
    subparser = subparsers.add_parser(
        command.name,
        help=command.summary,
        description=f"{command.summary[0].upper()}{command.summary[1:]}.",
        epilog=command.epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparser.set_defaults(command=command)
    command.add_options(subparser)


class _Version(argparse.Action):
    """Prints the version; looks it up no sooner."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"convserve-train {version('convserve')}")
        parser.exit()
