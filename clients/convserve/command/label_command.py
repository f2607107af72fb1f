"""`convserve label`: moves labels for all servers that follow one folder or object storage."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from convserve.command.columns import columns
from convserve.command.fleet import Replica, ask_until
from convserve.command.json_output import json_objects
from convserve.command.missing_input import MissingInput
from convserve.errors import ConvserveError
from convserve_bundle.contract import STABLE
from convserve_bundle.labels_file import VersionLabels
from convserve_store.errors import StoreError, StoreUrlError
from convserve_store.labels import LabelStore, open_labels

#: Most servers that an error names.
_MOST_NAMED = 20


def set_label(arguments: argparse.Namespace) -> int:
    """Moves a label to a version that all servers can serve; returns 0 when all follow.

    Raises:
        ConvserveError: It has not moved, and why; or not all servers follow in time.
    """
    model, label, version = arguments.model, arguments.label, arguments.model_version
    store = _open(arguments)
    if not arguments.force:
        _check_fleet(arguments, store)
    _move(arguments, store, version)
    if not arguments.force:
        _await_fleet(arguments, version)
    _print(arguments, {model: _read(store, model)}, label)
    return 0


def remove_label(arguments: argparse.Namespace) -> int:
    """Removes a label; returns 0.

    Raises:
        ConvserveError: It cannot be removed.
    """
    if arguments.label == STABLE and not arguments.force:
        raise ConvserveError(
            f"label: expected another one than {STABLE}, without which calls that ask for no "
            "version fail; --force removes it all the same"
        )
    store = _open(arguments)
    _move(arguments, store, None)
    _print(arguments, {arguments.model: _read(store, arguments.model)})
    return 0


def list_labels(arguments: argparse.Namespace) -> int:
    """Prints the labels of a model, or of all; returns 0.

    Raises:
        ConvserveError: They cannot be read.
    """
    store = _open(arguments)
    with _store_errors():
        names = [arguments.model] if arguments.model else store.names()
        _print(arguments, {name: store.read(name) for name in names})
    return 0


def _check_fleet(arguments: argparse.Namespace, store: LabelStore) -> None:
    """Waits until all servers can serve the version.

    Raises:
        ConvserveError: Not all can.
    """
    model, label, version = arguments.model, arguments.label, arguments.model_version
    # A version that is not there is not waited for.
    with _store_errors():
        store.check_version(model, version)

    def lacks(replica: Replica) -> str:
        return replica.lacks(model, version)

    lacking = ask_until(arguments, lacks, f"can serve {model}/{version}")
    if lacking:
        raise _named(
            f"label {label} of {model} has not moved: not all servers can serve version {version} "
            "(--force moves it all the same)",
            lacking,
        )


def _await_fleet(arguments: argparse.Namespace, version: int) -> None:
    """Waits until all servers follow.

    Raises:
        ConvserveError: Not all do in time.
    """
    model, label = arguments.model, arguments.label

    def strays(replica: Replica) -> str:
        return replica.strays(model, label, version)

    straying = ask_until(arguments, strays, f"answer {label} by {model}/{version}")
    if straying:
        raise _named(
            f"label {label} of {model} names version {version}, which not all servers follow after "
            f"{arguments.wait:g} s",
            straying,
        )


def _named(message: str, servers: list[str]) -> ConvserveError:
    error = ConvserveError(message)
    for line in servers[:_MOST_NAMED]:
        error.add_note(line)
    if len(servers) > _MOST_NAMED:
        error.add_note(f"and {len(servers) - _MOST_NAMED} more")
    return error


def _open(arguments: argparse.Namespace) -> LabelStore:
    with _store_errors():
        return open_labels(arguments.models, "models")


def _move(arguments: argparse.Namespace, store: LabelStore, version: int | None) -> None:
    with _store_errors():
        store.move(arguments.model, arguments.label, version)


def _read(store: LabelStore, model: str) -> VersionLabels:
    with _store_errors():
        return store.read(model)


@contextmanager
def _store_errors() -> Iterator[None]:
    """Raises errors of a store as those of this command."""
    try:
        yield
    except StoreUrlError as error:
        raise MissingInput(str(error)) from error
    except StoreError as error:
        raise ConvserveError(str(error)) from error


def _print(
    arguments: argparse.Namespace, models: Mapping[str, VersionLabels], only: str = ""
) -> None:
    """Prints labels of models, by name, all of them or only one."""
    rows = [
        (name, label, version, labels.previous.get(label))
        for name, labels in models.items()
        for label, version in sorted(labels.labels.items())
        if only in ("", label)
    ]
    if arguments.format == "table":
        cells = [[name, label, str(now), str(before or "")] for name, label, now, before in rows]
        print(columns([list(_HEAD), *cells]))
        return
    with json_objects(arguments.format) as write:
        for row in rows:
            write(json.dumps(dict(zip(_HEAD, row, strict=True))))


_HEAD = ("model", "label", "version", "previous")
