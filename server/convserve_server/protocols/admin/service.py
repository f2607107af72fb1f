"""The methods of convserve.v1.Admin."""

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message

from convserve_bundle.contract import LABEL_RULE, NAME_RULE, VERSION_RULE, is_name, is_version
from convserve_protos import admin_pb2 as pb
from convserve_server.core.administration import (
    Administration,
    Done,
    VersionState,
    VersionStatus,
)
from convserve_server.core.errors import InvalidRequest, ServeError, fitting, quoted
from convserve_server.protocols import grpc_errors
from convserve_server.protocols.base import Call, Failure, StreamHandler, UnaryHandler
from convserve_server.protocols.messages import parse

SERVICE = "convserve.v1.Admin"

#: Of a version, bytes.
_MAX_REASON = 1000

_STATES = {
    VersionState.FOUND: pb.VERSION_STATE_FOUND,
    VersionState.LOADING: pb.VERSION_STATE_LOADING,
    VersionState.SERVED: pb.VERSION_STATE_SERVED,
    VersionState.IDLE: pb.VERSION_STATE_IDLE,
    VersionState.RETIRING: pb.VERSION_STATE_RETIRING,
    VersionState.REFUSED: pb.VERSION_STATE_REFUSED,
    VersionState.ABSENT: pb.VERSION_STATE_ABSENT,
}


class Admin:
    """The service. What is asked for is done also if the caller goes away meanwhile.

    Args:
        administration: of all workers.
    """

    name = SERVICE

    def __init__(self, administration: Administration) -> None:
        self._administration = administration

    def unary(self) -> Mapping[str, UnaryHandler]:
        """See Service.unary."""
        return {
            "LoadModel": self._load,
            "UnloadModel": self._unload,
            "SetLabel": self._set_label,
            "ListVersions": self._list,
        }

    def streams(self) -> Mapping[str, StreamHandler]:
        """See Service.streams."""
        return {}

    def failure(self, error: ServeError) -> Failure:
        """See Service.failure."""
        return grpc_errors.to_failure(error)

    def drain(self) -> None:
        """See Service.drain; there are no streams."""

    def _load(self, call: Call) -> None:
        request = pb.LoadModelRequest()
        parse(request, call.payload)
        name, version = _name(call, request), _version(request)
        self._administration.load(name, version, self._done(call, pb.LoadModelResponse()))

    def _unload(self, call: Call) -> None:
        request = pb.UnloadModelRequest()
        parse(request, call.payload)
        name, version = _name(call, request), _version(request)
        self._administration.unload(name, version, self._done(call, pb.UnloadModelResponse()))

    def _set_label(self, call: Call) -> None:
        request = pb.SetLabelRequest()
        parse(request, call.payload)
        name, version, label = _name(call, request), _version(request), request.label
        if not is_name(label):
            raise InvalidRequest("label", f"{LABEL_RULE}, got {quoted(label)}")
        done = self._done(call, pb.SetLabelResponse())
        self._administration.set_label(name, label, version, done)

    def _list(self, call: Call) -> None:
        parse(pb.ListVersionsRequest(), call.payload)

        def done(statuses: list[VersionStatus]) -> None:
            seen = (one for one in statuses if call.sees(one.name))
            response = pb.ListVersionsResponse(versions=map(_status, seen))
            call.reply(response.SerializeToString())

        self._administration.statuses(done)

    def _done(self, call: Call, response: Message) -> Done:
        """Returns what answers a call."""

        def done(error: ServeError | None) -> None:
            if error is None:
                call.reply(response.SerializeToString())
            else:
                call.fail(self.failure(error))

        return done


def _name(call: Call, request: Any) -> str:
    """Returns the model that a request is about.

    Raises:
        InvalidRequest: if that cannot be the name of one.
        PermissionDenied: see Access.check_model.
    """
    name: str = request.model
    if call.access is not None:
        call.access.check_model(name)
    if not is_name(name):
        raise InvalidRequest("model", f"{NAME_RULE}, got {quoted(name)}")
    return name


def _version(request: Any) -> int | None:
    """Returns the version that a request is about; None if it names none.

    Raises:
        InvalidRequest: if there can be no such version.
    """
    if not request.HasField("version"):
        return None
    version: int = request.version
    if not is_version(str(version)):
        raise InvalidRequest("version", f"{VERSION_RULE}, got {version}")
    return version


def _status(status: VersionStatus) -> pb.VersionStatus:
    return pb.VersionStatus(
        model=status.name,
        version=status.version,
        state=_STATES[status.state],
        reason=fitting(status.reason, _MAX_REASON),
        labels=status.labels,
        default=status.default,
    )
