"""`convserve top`: reads the page and shows it, once or until it is interrupted."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from rich.live import Live

from convserve.command.json_output import json_objects
from convserve.command.terminal import has_colours
from convserve.command.terminal_text import printable
from convserve.command.top.drawing import Frame, as_text, console_for, draw
from convserve.command.top.json_form import as_json
from convserve.command.top.page import Page
from convserve.command.top.pause import Pause
from convserve.command.top.snapshot import Snapshot
from convserve.command.top.source import Source
from convserve.command.waiting import Wait
from convserve.errors import ConvserveError
from convserve.tls import Tls, choose_tls

# Of text that no terminal shows: everything is in it.
_TEXT_COLUMNS = 200


def top(arguments: argparse.Namespace) -> int:
    """Runs the command; returns 0 after one interval.

    Raises:
        ConvserveError: The page could not be read at first, or at the end of the only interval.
        KeyboardInterrupt: Ctrl-C or SIGTERM came.
    """
    source = Source(arguments.metrics, arguments.key_file, arguments.timeout, _tls(arguments))
    first = Wait(arguments.wait, arguments.metrics).call(source.read)
    if arguments.format == "jsonl" and not arguments.once:
        _print_lines(arguments, source, first)
    elif arguments.format != "table" or arguments.once or not _is_screen():
        _print_once(arguments, source, first)
    else:
        _show(arguments, source, first)
    return 0


def _tls(arguments: argparse.Namespace) -> Tls | None:
    """Returns how TLS is spoken; None: the address of the page is one of HTTP without it."""
    if not arguments.metrics.startswith("https:"):
        return None
    given = (getattr(arguments, f"tls_{name}") for name in ("ca", "cert", "key", "server_name"))
    return choose_tls(True, *given)


def _is_screen() -> bool:
    """Returns whether standard output is a terminal on which anything can be drawn anew."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _print_once(arguments: argparse.Namespace, source: Source, first: Page) -> None:
    _sleep(arguments.interval)
    snapshot = Snapshot.of(source.read(), first)
    if arguments.format != "table":
        with json_objects("jsonl") as write:
            write(as_json(snapshot, source.url, datetime.now(UTC)))
        return
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else _TEXT_COLUMNS
    frame = Frame(snapshot, source.url, datetime.now())
    print(as_text(frame, columns))


def _print_lines(arguments: argparse.Namespace, source: Source, first: Page) -> None:
    """Prints an object for each interval; what goes wrong is one line on standard error."""
    trouble = ""
    with json_objects("jsonl") as write:
        for frame in _frames(arguments, source, first, _sleep):
            if frame.trouble:
                if frame.trouble != trouble:
                    print(f"convserve: {printable(frame.trouble)}", file=sys.stderr, flush=True)
            elif frame.snapshot.seconds is not None:
                write(as_json(frame.snapshot, source.url, frame.read.astimezone(UTC)))
            trouble = frame.trouble


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def _show(arguments: argparse.Namespace, source: Source, first: Page) -> None:
    """Draws each interval over the last one, on the terminal's second screen."""
    console = console_for(sys.stdout, width=None, colours=has_colours(sys.stdout))
    live = Live(
        console=console,
        screen=True,
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with live, Pause() as pause:
        for frame in _frames(arguments, source, first, pause):
            size = console.size
            live.update(draw(frame, size.width, size.height), refresh=True)


def _frames(
    arguments: argparse.Namespace, source: Source, first: Page, pause: Callable[[float], bool]
) -> Iterator[Frame]:
    """Yields what there is to draw, without end.

    Args:
        arguments: Of the command.
        source: Of the pages.
        first: Page that was read already.
        pause: Waits for seconds; returns True where the same is to be drawn again before.
    """
    before: Page | None = first
    frame = Frame(Snapshot.of(first, None), source.url, datetime.now())
    while True:
        next_s = time.monotonic() + arguments.interval
        yield frame
        while pause(max(0.0, next_s - time.monotonic())):
            yield frame
        try:
            page = source.read()
        except ConvserveError as error:
            # What it counts until it is back is of no known time.
            before = None
            frame = replace(frame, trouble=error.message)
            continue
        snapshot = Snapshot.of(page, before)
        before = page
        frame = Frame(snapshot, source.url, datetime.now())
