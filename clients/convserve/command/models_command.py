"""`convserve models`: what a server has loaded, now or as it changes."""

from __future__ import annotations

import argparse
import json
import sys

from google.protobuf.json_format import MessageToDict

from convserve.command.columns import columns
from convserve.command.connection_options import connect
from convserve.command.json_output import json_objects
from convserve.command.terminal_text import printable
from convserve.command.waiting import Wait
from convserve.command.watching import Seen, watch
from convserve.models import ModelInfo


def models(arguments: argparse.Namespace) -> int:
    """Prints the models that the server has loaded, on standard error what it refused; returns 0.

    With --watch it prints what changes, until it is interrupted.

    Raises:
        ConvserveError: The server gave no answer.
    """

    def ask() -> Seen:
        # A new client for each try: one that found no address asks for it ever more seldom.
        with connect(arguments) as client:
            return Seen.by(client)

    seen = Wait(arguments.wait, arguments.server).call(ask)
    if arguments.watch:
        watch(arguments, seen, table)
    elif arguments.format != "table":
        with json_objects(arguments.format) as write:
            for model in seen.models:
                write(json.dumps(_model_as_json(model)))
    else:
        print(table(seen))
    for line in seen.refusals():
        print(printable(line), file=sys.stderr)
    return 0


def table(seen: Seen) -> str:
    """Returns the models that are loaded, a line each under a head."""
    return columns([_HEAD, *map(_model_as_row, seen.models)])


_HEAD = [
    *("model", "version", "default", "labels", "kind", "input", "classes", "accuracy", "published"),
    *("precision", "runs on"),
]


def _model_as_row(model: ModelInfo) -> list[str]:
    accuracy = model.metrics.get("accuracy")
    return [
        model.name,
        str(model.version),
        "yes" if model.default else "",
        ", ".join(model.version_labels),
        model.kind,
        "x".join(str(side) for side in model.input_shape),
        str(len(model.labels)),
        "" if accuracy is None else f"{accuracy:.2%}",
        f"{model.created:%Y-%m-%d %H:%M}" if model.created else "",
        model.precision,
        model.execution_provider.removesuffix("ExecutionProvider"),
    ]


def _model_as_json(model: ModelInfo) -> dict[str, object]:
    return {
        "name": model.name,
        "version": model.version,
        "default": model.default,
        "version_labels": list(model.version_labels),
        "execution_provider": model.execution_provider,
        "manifest": MessageToDict(model.manifest, preserving_proto_field_name=True),
    }
