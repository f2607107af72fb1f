"""`convserve models --fleet`: what each of several servers has, and where they differ."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from convserve.command.columns import columns
from convserve.command.fleet import Replica, ask_until
from convserve.command.json_output import json_objects
from convserve.command.terminal_text import printable

DIFFERENT = 3
"""Exit status where all servers have answered, and not all have the same."""


@dataclass(frozen=True)
class FleetRow:
    """A version of a model on one server.

    Attributes:
        replica: HOST:PORT of the server.
        model: Name of the model.
        version: Its version.
        state: "served", "refused", or "absent", which is for a version that others have.
        default: Whether it answers calls that ask for no version.
        labels: By which calls may ask for it.
        reason: Why it is refused.
        differs: Whether the servers do not agree on this version.
    """

    replica: str
    model: str
    version: int
    state: str
    default: bool = False
    labels: tuple[str, ...] = ()
    reason: str = ""
    differs: bool = False


def models_of_fleet(arguments: argparse.Namespace) -> int:
    """Prints what each server of --fleet has; names those that give no answer on standard error.

    Returns:
        0 if all have the same, 1 if one gave no answer, 3 if they differ.

    Raises:
        ConvserveError: A name has no address, or the options are not valid.
    """
    replicas: dict[str, Replica] = {}

    def answers(replica: Replica) -> str:
        replicas[replica.address] = replica
        return replica.error

    silent = ask_until(arguments, answers, "answer")
    rows = fleet_rows(list(replicas.values()))
    if arguments.format == "table":
        print(columns([_HEAD, *map(_as_cells, rows)]))
    else:
        with json_objects(arguments.format) as write:
            for row in rows:
                write(json.dumps(asdict(row)))
            for replica in replicas.values():
                if replica.seen is None:
                    write(json.dumps({"replica": replica.address, "error": replica.error}))
    for line in silent:
        print(f"convserve: no answer of {printable(line)}", file=sys.stderr)
    if silent:
        return 1
    return DIFFERENT if any(row.differs for row in rows) else 0


def fleet_rows(replicas: Sequence[Replica]) -> list[FleetRow]:
    """Returns a row for each server and version, by model, then newest first, then server."""
    found = {
        replica.address: {(row.model, row.version): row for row in _rows_of(replica)}
        for replica in replicas
        if replica.seen is not None
    }
    keys = {key for rows in found.values() for key in rows}
    result = []
    for name, version in sorted(keys, key=lambda key: (key[0], -key[1])):
        rows = [
            of.get((name, version)) or FleetRow(address, name, version, "absent")
            for address, of in found.items()
        ]
        differs = len({(row.state, row.default, row.labels) for row in rows}) > 1
        result += [FleetRow(**{**asdict(row), "differs": differs}) for row in rows]
    return result


def _rows_of(replica: Replica) -> Iterator[FleetRow]:
    assert replica.seen is not None
    for refused in replica.seen.refused:
        yield FleetRow(
            replica.address, refused.name, refused.version, "refused", reason=refused.reason
        )
    for model in replica.seen.models:
        yield FleetRow(
            replica.address,
            model.name,
            model.version,
            "served",
            model.default,
            model.version_labels,
        )


_HEAD = ["model", "version", "replica", "state", "default", "labels", "differs", "reason"]


def _as_cells(row: FleetRow) -> list[str]:
    return [
        row.model,
        str(row.version),
        row.replica,
        row.state,
        "yes" if row.default else "",
        ", ".join(row.labels),
        "yes" if row.differs else "",
        row.reason,
    ]
