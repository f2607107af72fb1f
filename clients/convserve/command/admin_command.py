"""`convserve admin`: loads, unloads, labels and lists the versions of a server's models."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import grpc

from convserve.arguments import validate_text
from convserve.channel import open_channel
from convserve.command.columns import columns
from convserve.command.json_output import json_objects
from convserve.command.waiting import Wait
from convserve.deadline import Deadline
from convserve.error_mapping import translated
from convserve.errors import ServerUnavailable
from convserve_protos import admin_pb2, admin_pb2_grpc

_PREFIX = "VERSION_STATE_"


def admin(arguments: argparse.Namespace) -> int:
    """Does what is asked for, and prints the versions of the model, or all; returns 0.

    Raises:
        ConvserveError: It cannot be done, or the server gave no answer.
    """
    server = f"unix:{validate_text('--socket', arguments.socket)}"

    def ask() -> Sequence[admin_pb2.VersionStatus]:
        deadline = Deadline.after(arguments.timeout)
        with (
            open_channel(server, grpc, None) as channel,
            translated(server, deadline, lambda: 0),
        ):
            return _act(admin_pb2_grpc.AdminStub(channel), arguments, deadline)

    try:
        versions = Wait(arguments.wait, server).call(ask, absent=(ServerUnavailable,))
    except ServerUnavailable as error:
        error.add_note(
            "is the server running with --admin-socket, by the same user? Others cannot open it"
        )
        raise
    if arguments.format == "table":
        print(columns([_HEAD, *map(_row, versions)]))
    else:
        with json_objects(arguments.format) as write:
            for version in versions:
                write(json.dumps(_as_json(version)))
    return 0


def _act(
    stub: admin_pb2_grpc.AdminStub, arguments: argparse.Namespace, deadline: Deadline
) -> Sequence[admin_pb2.VersionStatus]:
    """Does what is asked for; returns the versions that it is about.

    Raises:
        grpc.RpcError: It cannot be done, or the server gave no answer.
    """
    if arguments.action != "list":
        model, version = arguments.model, arguments.model_version
        if arguments.action == "load":
            request = admin_pb2.LoadModelRequest(model=model, version=version)
            stub.LoadModel(request, timeout=deadline.left_s())
        elif arguments.action == "unload":
            unload = admin_pb2.UnloadModelRequest(model=model, version=version)
            stub.UnloadModel(unload, timeout=deadline.left_s())
        else:
            label = admin_pb2.SetLabelRequest(model=model, label=arguments.label, version=version)
            stub.SetLabel(label, timeout=deadline.left_s())
    reply = stub.ListVersions(admin_pb2.ListVersionsRequest(), timeout=deadline.left_s())
    return [
        one for one in reply.versions if arguments.action == "list" or one.model == arguments.model
    ]


_HEAD = ["model", "version", "state", "default", "labels", "reason"]


def _row(version: admin_pb2.VersionStatus) -> list[str]:
    return [
        version.model,
        str(version.version),
        _state(version),
        "yes" if version.default else "",
        ", ".join(version.labels),
        version.reason,
    ]


def _as_json(version: admin_pb2.VersionStatus) -> dict[str, object]:
    return {
        "model": version.model,
        "version": version.version,
        "state": _state(version),
        "default": version.default,
        "labels": list(version.labels),
        "reason": version.reason,
    }


def _state(version: admin_pb2.VersionStatus) -> str:
    """Returns the state in lower case; its number, where this client does not know it."""
    if version.state not in admin_pb2.VersionState.values():
        return str(version.state)
    return admin_pb2.VersionState.Name(version.state).removeprefix(_PREFIX).lower()
