"""Asks a server from several threads: again while it is busy, and again while it is away."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from convserve.calls import VersionChoice
from convserve.client import Client
from convserve.command.connection_options import connect
from convserve.command.waiting import ABSENT, Wait
from convserve.errors import ClientClosed, DeadlineExceeded
from convserve.models import ModelInfo, find_model

T = TypeVar("T")

Ask = Callable[[Client, float], T]
"""One call of a client; the number is its timeout in seconds."""


class RetryingCaller:
    """Makes calls in each thread over a connection of that thread.

    A server has several workers and a connection stays with one of them.

    Attributes:
        wait: How long an absent server is waited for.
    """

    def __init__(self, connect: Callable[[], Client], wait: Wait, timeout_s: float) -> None:
        """Makes a caller; each thread connects when it first asks.

        Args:
            connect: Makes a client.
            wait: How long an absent server is waited for.
            timeout_s: Longest wait for an answer while the server is there, in seconds.
        """
        self._connect = connect
        self.wait = wait
        self._timeout_s = timeout_s
        self._own = threading.local()
        self._lock = threading.Lock()
        self._clients: set[Client] = set()
        self._closed = threading.Event()

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> RetryingCaller:
        """Returns the caller for a command's --server, --timeout, --wait and --priority."""
        return cls(
            lambda: connect(
                arguments,
                max_tries=sys.maxsize,  # As many as there are in the timeout.
                priority=getattr(arguments, "priority", None),
            ),
            Wait(arguments.wait, arguments.server),
            arguments.timeout,
        )

    def ask(self, call: Ask[T]) -> T:
        """Returns what a call returns.

        Raises:
            ConvserveError: What the call raised last.
        """
        return self.wait.call(lambda: self._once(call), self._closed)

    def model(
        self,
        name: str | None,
        version: VersionChoice,
        choose: Callable[[Sequence[ModelInfo]], str],
    ) -> ModelInfo:
        """Returns the model that is asked, as find_model does, once the server has it.

        Args:
            name: Its name; None: what choose returns.
            version: Its version, or a label; None: the newest.
            choose: Returns the name of the one of the loaded models that is meant.

        Raises:
            ConvserveError: There is no such model, or no answer.
        """

        def find(client: Client, timeout_s: float) -> ModelInfo:
            loaded = client.models(timeout=timeout_s)
            return find_model(loaded, name or choose(loaded), version)

        # A server that does not list its models in time is not there yet, although it was reached.
        absent = (*ABSENT, DeadlineExceeded)
        return self.wait.call(lambda: self._once(find), self._closed, absent)

    def close(self) -> None:
        """Closes the connections; calls under way in other threads end soon."""
        self._closed.set()
        with self._lock:
            for client in self._clients:
                client.close()

    def _once(self, call: Ask[T]) -> T:
        try:
            return call(self._client(), self._timeout_s)
        except ABSENT:
            self._disconnect()
            raise

    def _client(self) -> Client:
        client: Client | None = getattr(self._own, "client", None)
        if client is None:
            with self._lock:
                if self._closed.is_set():
                    raise ClientClosed("the command is ending")
                client = self._own.client = self._connect()
                self._clients.add(client)
        return client

    def _disconnect(self) -> None:
        """Makes the next call of this thread go over a new connection.

        That one may reach another worker, asks at once for the address of the server, and not at
        the end of a pause that grew during the outage.
        """
        client: Client | None = getattr(self._own, "client", None)
        if client is not None:
            self._own.client = None
            with self._lock:
                self._clients.discard(client)
            client.close()
