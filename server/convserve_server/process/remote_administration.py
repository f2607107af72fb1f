"""What an operator may ask, as messages between a process that hears it and the supervisor."""

import itertools
import logging
import threading
from collections.abc import Callable
from typing import Literal

from convserve_server.core import errors
from convserve_server.core.administration import (
    Administration,
    Done,
    VersionState,
    VersionStatus,
)
from convserve_server.core.errors import (
    Draining,
    FailedPrecondition,
    InternalFault,
    InvalidRequest,
    NotFound,
    NotReady,
    ServeError,
)
from convserve_server.process.link import SupervisorLink
from convserve_server.process.messages import AdminReply, AdminRequest, Status, one_line

log = logging.getLogger(__name__)


class RemoteAdministration:
    """The supervisor's Administration, in another process; see there.

    Args:
        link: To the supervisor.
    """

    def __init__(self, link: SupervisorLink) -> None:
        self._link = link
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Callable[[AdminReply], None]] = {}
        self._lock = threading.Lock()
        self._closed = False
        # Who waits for the next listing, and whether one is on its way.
        self._listeners: list[Callable[[list[VersionStatus]], None]] = []
        self._listing = False
        link.on(AdminReply, self._on_reply)

    def load(self, name: str, version: int | None, done: Done) -> None:
        """See Administration.load."""
        self._change("load", name, version, done)

    def unload(self, name: str, version: int | None, done: Done) -> None:
        """See Administration.unload."""
        self._change("unload", name, version, done)

    def set_label(self, name: str, label: str, version: int | None, done: Done) -> None:
        """See Administration.set_label."""
        self._change("set_label", name, version, done, label)

    def statuses(self, done: Callable[[list[VersionStatus]], None]) -> None:
        """See Administration.statuses.

        The supervisor is asked by one message at a time, however many ask here; each is answered
        by a listing that begins after he asked.
        """
        with self._lock:
            self._listeners.append(done)
            if self._listing:
                return
            self._listing = True
        self._list()

    def close(self) -> None:
        """Answers all that waits: the supervisor is gone, or the server stops."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, {}
        for number, on_reply in waiting.items():
            on_reply(_closed(number))

    def _list(self) -> None:
        with self._lock:
            listeners, self._listeners = self._listeners, []
            self._listing = bool(listeners)
        if not listeners:
            return

        def on_reply(reply: AdminReply) -> None:
            self._list()
            statuses = [_to_status(one) for one in reply.statuses]
            for done in listeners:
                try:
                    done(statuses)
                except Exception:
                    # A fault of ours in one answer; the others are still sent.
                    log.exception("answering with a list of versions failed")

        self._ask(AdminRequest(next(self._numbers), "statuses"), on_reply)

    def _change(
        self,
        action: Literal["load", "unload", "set_label"],
        name: str,
        version: int | None,
        done: Done,
        label: str = "",
    ) -> None:
        request = AdminRequest(next(self._numbers), action, name, version, label)
        self._ask(request, lambda reply: done(_to_error(reply, request)))

    def _ask(self, request: AdminRequest, on_reply: Callable[[AdminReply], None]) -> None:
        with self._lock:
            if not self._closed:
                self._waiting[request.number] = on_reply
        if self._closed or not self._link.send(request):
            with self._lock:
                self._waiting.pop(request.number, None)
            on_reply(_closed(request.number))

    def _on_reply(self, reply: AdminReply) -> None:
        with self._lock:
            on_reply = self._waiting.pop(reply.number, None)
        if on_reply is not None:
            on_reply(reply)


def follow(
    request: AdminRequest, administration: Administration, reply: Callable[[AdminReply], None]
) -> None:
    """Does what a request asks for; for the supervisor.

    Args:
        request: Of the process that hears operators.
        administration: Of all workers.
        reply: Sends the answer, once.
    """
    number, name, version = request.number, request.name, request.version

    def done(error: ServeError | None) -> None:
        reply(AdminReply(number) if error is None else _to_reply(number, error))

    if request.action == "load":
        administration.load(name, version, done)
    elif request.action == "unload":
        administration.unload(name, version, done)
    elif request.action == "set_label":
        administration.set_label(name, request.label, version, done)
    else:
        administration.statuses(
            lambda found: reply(AdminReply(number, statuses=tuple(map(_from_status, found))))
        )


def _closed(number: int) -> AdminReply:
    return AdminReply(number, Draining.__name__, "", "the server is stopping")


def _to_reply(number: int, error: ServeError) -> AdminReply:
    kind, subject, message = type(error).__name__, "", str(error)
    if isinstance(error, InvalidRequest):
        subject, message = error.field, error.problem
    elif isinstance(error, NotFound):
        subject = error.kind
    return AdminReply(number, kind, subject, one_line(message))


def _to_error(reply: AdminReply, request: AdminRequest) -> ServeError | None:
    if not reply.error:
        return None
    kind = getattr(errors, reply.error, None)
    if kind is InvalidRequest:
        return InvalidRequest(reply.subject, reply.message)
    if kind is NotFound:
        resource = request.name
        if reply.subject == "version":
            resource += f"/{request.version}"
        return NotFound(reply.subject, resource, reply.message)
    if isinstance(kind, type) and issubclass(kind, FailedPrecondition | NotReady):
        return kind(reply.message)
    return InternalFault(request.action, RuntimeError(f"{reply.error}: {reply.message}"))


def _to_status(status: Status) -> VersionStatus:
    return VersionStatus(
        status.name,
        status.version,
        VersionState(status.state),
        status.reason,
        status.labels,
        status.default,
    )


def _from_status(status: VersionStatus) -> Status:
    return Status(
        status.name,
        status.version,
        status.state.value,
        one_line(status.reason),
        status.labels,
        status.default,
    )
