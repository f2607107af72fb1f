"""The command-line parser of all programs: argparse with near names and shell completion."""

from __future__ import annotations

import argparse
import difflib
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn

SHELLS = ("bash", "zsh", "tcsh")
"""The shells that `--print-completion` writes for."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns the name that was probably meant.

    Args:
        name: A name that is not among the known ones.
        known: The names that exist.

    Returns:
        " (did you mean NAME?)", or "" if no known name is near.
    """
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


class ArgumentParser(argparse.ArgumentParser):
    """A parser whose errors name the option, command or choice that was probably meant.

    Its subcommands are parsed by the same class. No option can be shortened.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False} | options)
        self._strings: list[str] = []

    def parse_known_args(  # type: ignore[override]  # Typeshed has four overloads of it.
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parses as argparse does; what a subcommand does not know is an error of the subcommand.

        Raises:
            SystemExit: For an unknown argument, too, where the parser has no subcommands.
        """
        strings = list(sys.argv[1:] if args is None else args)
        commands = any(isinstance(each, argparse._SubParsersAction) for each in self._actions)
        # Options behind a command are not this parser's.
        own = itertools.takewhile(lambda string: string.startswith("-"), strings)
        self._strings = list(own) if commands else strings
        known, unknown = super().parse_known_args(strings, namespace)
        if unknown and not commands:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        """Prints usage and message, with what was meant by each misspelt option, and exits with 2.

        Raises:
            SystemExit: Always.
        """
        super().error(message + "".join(dict.fromkeys(map(self._meant, self._strings))))

    def _meant(self, string: str) -> str:
        option = string.partition("=")[0]
        known = self._option_string_actions
        if not option.startswith("--") or option in known:
            return ""
        return did_you_mean(option, known)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += did_you_mean(str(value), map(str, action.choices or ()))
            raise


def add_print_completion(parser: argparse.ArgumentParser) -> None:
    """Adds `--print-completion SHELL`, which prints the shell's completion script and exits.

    The script knows the commands and options that have a help text. Values whose metavar is PATH,
    FILE or DIR are completed from the disk.
    """
    parser.add_argument(
        "--print-completion",
        choices=SHELLS,
        action=_PrintCompletion,
        help="print the completion script for this shell, to be sourced by it, and exit",
    )


class _PrintCompletion(argparse.Action):
    """Prints the script; imports shtab no sooner."""

    def __call__(self, parser: argparse.ArgumentParser, _: object, shell: Any, *__: object) -> None:
        import shtab

        kinds = {"PATH": shtab.FILE, "FILE": shtab.FILE, "DIR": shtab.DIRECTORY}
        for action in _actions(parser):
            if action.metavar in kinds:
                action.complete = kinds[action.metavar]  # type: ignore[attr-defined]  # shtab's.
        print(shtab.complete(parser, shell=shell))
        parser.exit()


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yields the actions of a parser and of its subcommands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _actions(each)
