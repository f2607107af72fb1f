"""`convserve models --watch`: asks again and again, and prints what has changed."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from convserve.client import Client
from convserve.command.connection_options import connect
from convserve.command.json_output import json_objects
from convserve.command.terminal import has_colours
from convserve.command.terminal_text import printable
from convserve.errors import ConvserveError
from convserve.models import ModelInfo, RefusedVersion

EVERY_S = 1.0
"""Between two questions."""

# Moves to the top left and clears the screen (ECMA-48: CUP, ED).
_CLEAR = "\x1b[H\x1b[2J"


@dataclass(frozen=True)
class Seen:
    """What a server has loaded and refused at one time."""

    models: Sequence[ModelInfo]
    refused: Sequence[RefusedVersion]

    @classmethod
    def by(cls, client: Client) -> Seen:
        """Asks a server.

        Raises:
            ConvserveError: It gave no answer.
        """
        return cls(client.models(), client.refused())

    def refusals(self) -> list[str]:
        """Returns a line for each version that is refused."""
        return [f"{one.name}/{one.version} is not served: {one.reason}" for one in self.refused]


_NOTHING = Seen((), ())


@dataclass(frozen=True)
class Change:
    """Something that is other than before.

    Attributes:
        model: Name of the model.
        version: Its version.
        event: "loaded", "unloaded", "default", "labels", "refused" or "forgotten", which is for a
            version that is no longer refused.
        text: What follows the version in a line for people.
        details: What belongs to the event, for programs.
    """

    model: str
    version: int
    event: str
    text: str
    details: dict[str, object] = field(default_factory=dict)

    def line(self) -> str:
        """Returns it for people."""
        return printable(f"{self.model}/{self.version} {self.text}")

    def as_json(self) -> str:
        """Returns it as a JSON object."""
        what = {"model": self.model, "version": self.version, "event": self.event}
        return json.dumps(what | self.details)


def changes(before: Seen, after: Seen) -> list[Change]:
    """Returns what has changed, by model and version."""
    old = {(one.name, one.version): one for one in before.models}
    new = {(one.name, one.version): one for one in after.models}
    refused_before = {(one.name, one.version): one.reason for one in before.refused}
    refused = {(one.name, one.version): one.reason for one in after.refused}
    found: list[Change] = []
    for key in sorted({*old, *new, *refused_before, *refused}):
        found += _of_loaded(*key, old.get(key), new.get(key))
        reason = refused.get(key)
        if reason is not None and reason != refused_before.get(key):
            found.append(Change(*key, "refused", f"is not served: {reason}", {"reason": reason}))
        elif reason is None and key in refused_before and key not in new:
            found.append(Change(*key, "forgotten", "is no longer refused"))
    return found


def _of_loaded(
    name: str, version: int, old: ModelInfo | None, new: ModelInfo | None
) -> Iterator[Change]:
    if new is None:
        if old is not None:
            yield Change(name, version, "unloaded", "is unloaded")
        return
    if old is None:
        yield Change(name, version, "loaded", "is loaded")
    if new.default and not (old and old.default):
        yield Change(name, version, "default", "answers calls that ask for no version")
    labels = new.version_labels
    if labels != (old.version_labels if old else ()):
        text = f"has the label{'s' * (len(labels) > 1)} {', '.join(labels)}"
        text = text if labels else "has no label any more"
        yield Change(name, version, "labels", text, {"labels": list(labels)})


def watch(arguments: argparse.Namespace, seen: Seen, table: Callable[[Seen], str]) -> None:
    """Prints what a server has, and what changes, until it is interrupted.

    On a terminal it draws the table anew after each change; elsewhere it prints a line, or an
    object, for each change, at first for all that is there. A server that is gone is one line on
    standard error, and is asked further.

    Args:
        arguments: Of the command.
        seen: What the server has now.
        table: Returns it as a table.

    Raises:
        ConvserveError: The client cannot be used any more.
    """
    with (
        _printing(arguments, table) as show,
        connect(arguments) as client,
    ):
        show(_NOTHING, seen)
        trouble = ""
        while True:
            time.sleep(EVERY_S)
            try:
                now = Seen.by(client)
            except ConvserveError as error:
                if trouble != error.message:
                    trouble = error.message
                    print(f"convserve: {printable(trouble)}", file=sys.stderr, flush=True)
                continue
            trouble = ""
            show(seen, now)
            seen = now


@contextmanager
def _printing(
    arguments: argparse.Namespace, table: Callable[[Seen], str]
) -> Iterator[Callable[[Seen, Seen], None]]:
    """Gives what prints a change from what was seen before to what is there now."""
    if arguments.format != "table":
        with json_objects(arguments.format) as write:

            def write_each(before: Seen, now: Seen) -> None:
                for change in changes(before, now):
                    write(change.as_json())

            yield write_each
        return

    def print_each(before: Seen, now: Seen) -> None:
        for change in changes(before, now):
            sys.stdout.write(f"{_time()} {change.line()}\n")
        sys.stdout.flush()

    def draw(before: Seen, now: Seen) -> None:
        if before == now and before is not _NOTHING:
            return
        refusals = [printable(line) for line in now.refusals()]
        foot = f"since {_time()}; Ctrl-C ends"
        sys.stdout.write(_CLEAR + "\n".join([table(now), *refusals, "", foot]) + "\n")
        sys.stdout.flush()

    yield draw if has_colours(sys.stdout) else print_each


def _time() -> str:
    return f"{datetime.now():%H:%M:%S}"
