"""`convserve models`: what a server has loaded, and what it has refused."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from google.protobuf.json_format import MessageToDict

from convserve.client import Client
from convserve.command.json_output import json_objects
from convserve.command.terminal_text import printable
from convserve.command.waiting import Wait
from convserve.models import ModelInfo, RefusedVersion


def models(arguments: argparse.Namespace) -> int:
    """Prints the models that the server has loaded, on standard error what it refused; returns 0.

    Raises:
        ConvserveError: The server gave no answer.
    """

    def ask() -> tuple[list[ModelInfo], list[RefusedVersion]]:
        # A new client for each try: one that found no address asks for it ever more seldom.
        with Client(arguments.server, timeout=arguments.timeout) as client:
            return client.models(), client.refused()

    found, refused = Wait(arguments.wait, arguments.server).call(ask)
    if arguments.format != "table":
        with json_objects(arguments.format) as write:
            for model in found:
                write(json.dumps(_model_as_json(model)))
    else:
        _print_columns([_HEAD, *(_model_as_row(model) for model in found)])
    for one in refused:
        line = f"{one.name}/{one.version} is not served: {one.reason}"
        print(printable(line), file=sys.stderr)
    return 0


_HEAD = [
    *("model", "version", "kind", "input", "classes", "accuracy", "published"),
    *("precision", "runs on"),
]


def _model_as_row(model: ModelInfo) -> list[str]:
    accuracy = model.metrics.get("accuracy")
    return [
        model.name,
        str(model.version),
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
        "execution_provider": model.execution_provider,
        "manifest": MessageToDict(model.manifest, preserving_proto_field_name=True),
    }


def _print_columns(rows: Sequence[Sequence[str]]) -> None:
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    for row in cells:
        line = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        print(line.rstrip())
