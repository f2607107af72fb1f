"""The options of `convserve label`, and of all commands that ask several servers."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from convserve.command import connection_options, option_values
from convserve.settings import DEFAULT_TIMEOUT_S

if TYPE_CHECKING:
    from convserve_host.arguments import ArgumentParser

MODELS_VARIABLE = "CONVSERVE_MODELS"
"""The server's, too."""

DEFAULT_WAIT_S = 60.0

ABOUT = (
    "Moves labels for all servers that serve the models of one folder or object storage with"
    " --rollout label. They answer calls that ask for no version by the one with the label stable."
)
EXAMPLES = (
    "convserve label set mnist stable 4 --models s3://bucket/models --fleet dns:///convserve:50051",
    "convserve label list --models models",
)
#: Of each command: its name, what it does, an example.
COMMANDS = {
    "set": (
        "Moves a label to a version, once all servers can serve it, and ends when all answer by it."
        " To go back is the same command with the version before. Exit status 1: the label has not"
        " moved, or not all servers follow, and why.",
        "convserve label set mnist stable 4 --models s3://bucket/models --fleet a:50051,b:50051",
    ),
    "remove": (
        "Removes a label. Calls that ask for it fail from then on.",
        "convserve label remove mnist canary --models s3://bucket/models",
    ),
    "list": (
        "Lists the labels of a model, or of all: the version of each, and the one before, to which"
        " it can move back.",
        "convserve label list mnist --models s3://bucket/models --format jsonl",
    ),
}


def run(name: str) -> Callable[[argparse.Namespace], int]:
    """Returns what does one of the commands; its module is imported when it runs."""

    def command(arguments: argparse.Namespace) -> int:
        from convserve.command import label_command

        functions = {
            "set": label_command.set_label,
            "remove": label_command.remove_label,
            "list": label_command.list_labels,
        }
        return functions[name](arguments)

    return command


def add(name: str, command: ArgumentParser) -> None:
    """Adds the options of one of the commands, but for --format."""
    nargs = "?" if name == "list" else None
    command.add_argument("model", metavar="NAME", nargs=nargs, help="name of the model")
    if name != "list":
        command.add_argument(
            "label", metavar="LABEL", type=option_values.new_label, help="the label, such as stable"
        )
    if name == "set":
        command.add_argument(
            "model_version",
            metavar="VERSION",
            type=option_values.positive,
            help="version that has the label from now on, 1 or more",
        )
    default = os.environ.get(MODELS_VARIABLE) or None
    command.add_argument_group("models").add_argument(
        "--models",
        metavar="DIR|URL",
        default=default,
        required=default is None,
        help="the models folder, or s3://BUCKET/FOLDER, as the servers have it (required) [env:"
        f" {MODELS_VARIABLE}]",
    )
    if name == "remove":
        command.add_argument("--force", action="store_true", help="remove the label stable, too")
    if name == "set":
        _add_servers(command)


def add_fleet(group: argparse._ArgumentGroup | argparse._MutuallyExclusiveGroup) -> None:
    """Adds --fleet, which has several addresses."""
    group.add_argument(
        "--fleet",
        metavar="HOST:PORT,...",
        type=option_values.addresses,
        help="servers, each asked by itself: all addresses that a name has, of one or more names",
    )


def _add_servers(command: ArgumentParser) -> None:
    group = command.add_argument_group("servers")
    which = group.add_mutually_exclusive_group(required=True)
    add_fleet(which)
    which.add_argument(
        "--force",
        action="store_true",
        help="ask no server: the label moves, and servers that cannot serve the version follow"
        " when they can",
    )
    connection_options.add_tls(group)
    group.add_argument(
        "--timeout",
        metavar="S",
        type=option_values.timeout_seconds,
        default=DEFAULT_TIMEOUT_S,
        help="longest wait for an answer, in seconds [default: %(default)g]",
    )
    group.add_argument(
        "--wait",
        metavar="S",
        type=option_values.wait_seconds,
        default=DEFAULT_WAIT_S,
        help="longest wait until all can serve the version, and then until all follow, in seconds,"
        " 0 or more [default: %(default)g]",
    )
