"""What decides which models a worker serves, as the worker sees it."""

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from convserve_server.core.administration import Administration
from convserve_server.core.descriptions import Findings
from convserve_server.core.preparer import Preparer
from convserve_server.core.repository import Repository
from convserve_server.core.tables import Bundle
from convserve_server.process.link import SupervisorLink
from convserve_server.process.messages import (
    Commit,
    Failed,
    Joins,
    Listen,
    Loading,
    Prepare,
    Prepared,
    Retire,
    Retired,
    SetLogLevel,
    Stage,
    Staged,
    Wanted,
    one_line,
)

log = logging.getLogger(__name__)


class Control(Protocol):
    """Tells a worker what to load and serve, and hears what became of it."""

    @property
    def switch(self) -> Sequence[int]:
        """The number of the table that counts, at index 0."""

    @property
    def administration(self) -> Administration:
        """What changes and lists the models of all workers."""

    def attach(self, repository: Repository, preparer: Preparer) -> None:
        """Begins: the worker can load models."""

    def on_prepared(self, bundle: Bundle, findings: Findings) -> None:
        """Hears that a bundle is loaded and warm, and what was found out by that."""

    def on_failed(self, bundle: Bundle, reason: str) -> None:
        """Hears that a bundle cannot be served."""

    def on_retired(self, bundle: Bundle) -> None:
        """Hears that a bundle is unloaded."""

    def on_wanted(self, name: str) -> None:
        """Hears that a call waits for a model that is idle."""

    def wait_to_listen(self, stop: threading.Event) -> bool:
        """Waits until the worker may accept calls; returns False if it was stopped before."""

    def watch(self) -> None:
        """Goes on by itself from now on."""

    def close(self, timeout_s: float) -> None:
        """Ends; waits for what is being loaded at most so long."""


class RemoteControl:
    """The supervisor decides; see Control.

    Args:
        link: To the supervisor.
        switch: See Control.
        administration: See Control.
    """

    def __init__(
        self, link: SupervisorLink, switch: Sequence[int], administration: Administration
    ) -> None:
        self.switch = switch
        self.administration = administration
        self._link = link
        self._listen = threading.Event()

    def attach(self, repository: Repository, preparer: Preparer) -> None:
        """See Control.attach."""
        self._repository, self._preparer = repository, preparer
        link = self._link
        link.on(Prepare, self._prepare)
        link.on(Stage, self._stage)
        link.on(Commit, lambda _: repository.settle())
        link.on(Retire, lambda message: repository.drop(message.bundle))
        link.on(SetLogLevel, lambda message: logging.getLogger().setLevel(message.level.upper()))
        link.on(Listen, lambda _: self._listen.set())
        self._link.used = repository.used
        self._link.send(Joins())

    def on_prepared(self, bundle: Bundle, findings: Findings) -> None:
        """See Control.on_prepared."""
        self._link.send(Prepared(bundle, findings))

    def on_failed(self, bundle: Bundle, reason: str) -> None:
        """See Control.on_failed."""
        self._link.send(Failed(bundle, one_line(reason)))

    def on_retired(self, bundle: Bundle) -> None:
        """See Control.on_retired."""
        self._link.send(Retired(bundle))

    def on_wanted(self, name: str) -> None:
        """See Control.on_wanted."""
        self._link.send(Wanted(name))

    def wait_to_listen(self, stop: threading.Event) -> bool:
        """See Control.wait_to_listen."""
        while not stop.is_set():
            # Again and again: Python runs the handler of a signal on this thread.
            if self._listen.wait(0.1):
                return True
        return False

    def watch(self) -> None:
        """See Control.watch; the supervisor does."""

    def close(self, timeout_s: float) -> None:
        """See Control.close."""
        self._preparer.close(timeout_s)

    # What the supervisor says, on the thread that reads: nothing here takes long.

    def _prepare(self, message: Prepare) -> None:
        self._link.send(Loading(message.bundle))
        self._preparer.prepare(message.bundle, Path(message.path), message.batch_s)

    def _stage(self, message: Stage) -> None:
        if self._repository.stage(message.table):
            self._link.send(Staged(message.table.generation))
        else:
            # The supervisor replaces a worker that does not answer.
            log.error("table %d has a version that is not loaded", message.table.generation)
