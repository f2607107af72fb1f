"""The command convserve-train explain."""

import argparse

from convserve_trainer.cli import lecture
from convserve_trainer.cli.command import Command
from convserve_trainer.lecture import topics

EPILOG = """examples:
  convserve-train explain shift
  convserve-train explain kernels models/mnist --photo-data cats_dogs
"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    names = topics.NAMES
    command.add_argument("topic", metavar="TOPIC", choices=names, help=", ".join(names))
    lecture.add_shared_options(command, "the figures")


def run(options: argparse.Namespace) -> None:
    """Prints a topic's text and numbers, and writes its figures as SVG and PNG.

    Raises:
        TrainerError: anything a user can mend.
        OSError: the folder cannot be written to.
    """
    _, _, [section] = lecture.make_sections(options, [options.topic])
    print(section)
    for figure in section.figures:
        print(f"\n{options.out / figure.name}.svg, .png: {figure.caption}", end="")
    print(flush=True)


COMMAND = Command(
    "explain",
    "explain one topic of the lecture on convnets, in numbers of your own net",
    EPILOG,
    add_options,
    run,
)
