"""`convserve bench`: makes load, and says what the server made of it."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from convserve.command.json_output import json_objects
from convserve_bench import plot
from convserve_bench.generator import Watch
from convserve_bench.load import Load
from convserve_bench.measured import Interrupted, Measured, measure
from convserve_bench.progress import Progress
from convserve_bench.report import as_json, failure_lines, heading, lines
from convserve_bench.sweep import Step, header, row, steps
from convserve_bench.workload import Workload, prepare


def bench(arguments: argparse.Namespace) -> int:
    """Runs the command.

    Returns:
        0 if every call was answered, 1 if not, 2 if options do not go together.

    Raises:
        ConvserveError: The server gave no answer to begin with, or Matplotlib is missing.
        KeyboardInterrupt: Ctrl-C or SIGTERM came; what was measured until then is printed.
    """
    if wrong := _together(arguments):
        print(f"convserve bench: error: {wrong}", file=sys.stderr)
        return 2
    if arguments.plot:
        plot.check_there()
    workload = prepare(arguments)
    load = Load(
        callers=arguments.callers,
        connections=min(arguments.connections, arguments.callers),
        seconds=arguments.seconds,
        warm_up_s=arguments.warm_up,
        timeout_s=arguments.timeout,
        rate=arguments.rate,
    )
    return (_sweep if arguments.sweep else _once)(arguments, load, workload)


def _together(arguments: argparse.Namespace) -> str | None:
    if arguments.sweep and arguments.rate is not None:
        return f"argument --rate: expected none beside --sweep, got {arguments.rate:g}"
    if arguments.plot and not arguments.sweep:
        return f"argument --plot: expected --sweep beside it, got {arguments.plot!r} alone"
    return None


def _once(arguments: argparse.Namespace, load: Load, workload: Workload) -> int:
    try:
        with _watching(arguments) as watch:
            measured = measure(load, workload, watch)
    except Interrupted as interrupted:
        if interrupted.measured is not None:
            _print(arguments, workload, interrupted.measured)
        raise interrupted.cause from None
    _print(arguments, workload, measured)
    return _status(measured)


def _print(arguments: argparse.Namespace, workload: Workload, measured: Measured) -> None:
    if arguments.format != "table":
        print(json.dumps(as_json(workload, measured, arguments.server)))
        return
    print(heading(workload, measured), *lines(measured), sep="\n", flush=True)
    _print_troubles(measured)


def _sweep(arguments: argparse.Namespace, load: Load, workload: Workload) -> int:
    done: list[Step] = []
    try:
        with _watching(arguments) as watch, json_objects(arguments.format) as write:
            for step in steps(load, workload, watch):
                if arguments.format == "table":
                    _print_step(workload, step)
                else:
                    fields = as_json(workload, step.measured, arguments.server)
                    write(json.dumps({"share": step.share} | fields))
                done.append(step)
    except Interrupted as interrupted:
        raise interrupted.cause from None
    if arguments.plot:
        today = datetime.datetime.now(datetime.UTC).date()
        plot.write(arguments.plot, done, workload, arguments.server, today)
    return max(_status(step.measured) for step in done)


def _print_step(workload: Workload, step: Step) -> None:
    measured = step.measured
    if step.share is None:
        print(heading(workload, measured), header(), sep="\n")
    print(row(step), flush=True)
    _print_troubles(measured)


def _print_troubles(measured: Measured) -> None:
    for line in failure_lines(measured):
        print(line, file=sys.stderr)
    for line in measured.warnings:
        print(f"warning: {line}", file=sys.stderr)


def _status(measured: Measured) -> int:
    return 1 if measured.failures.total or not measured.latencies.count else 0


@contextmanager
def _watching(arguments: argparse.Namespace) -> Iterator[Watch]:
    """Yields what is called each tick: it prints a line on stderr if that is a terminal."""
    if not (arguments.progress and sys.stderr.isatty()):
        yield lambda *_: None
        return
    progress = Progress(sys.stderr)
    try:
        yield progress
    finally:
        progress.close()
