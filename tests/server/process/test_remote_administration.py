"""What an operator asks, as messages to the supervisor and back."""

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from convserve_server.core.administration import VersionState, VersionStatus
from convserve_server.core.errors import (
    Draining,
    InternalFault,
    InvalidRequest,
    ModelLoading,
    NotExplicit,
    NotFound,
    ServeError,
    VersionNotServed,
    VersionRefused,
)
from convserve_server.process.link import SupervisorLink
from convserve_server.process.messages import AdminReply, AdminRequest, Alive, decode, encode
from convserve_server.process.remote_administration import RemoteAdministration, follow
from tests.server.fake_administration import FakeAdministration

PATIENCE_S = 60.0


class Pair:
    """Both ends: what operators are answered by, and the supervisor of a test."""

    def __init__(self) -> None:
        self._theirs, self.ours = socket.socketpair()
        self._ended = threading.Event()
        self.link = SupervisorLink(self._theirs, self._on_end)
        self.remote = RemoteAdministration(self.link)
        self.fake = FakeAdministration()
        self.link.start(PATIENCE_S)
        self._thread = threading.Thread(target=self._supervise)
        self._thread.start()

    def _on_end(self) -> None:
        self.remote.close()
        self._ended.set()

    def _supervise(self) -> None:
        with self.ours.makefile("rb") as lines:
            for line in lines:
                message = decode(line)
                if isinstance(message, AdminRequest):
                    follow(message, self.fake, self.reply)
                else:
                    assert message == Alive()

    def reply(self, message: AdminReply) -> None:
        self.ours.sendall(encode(message))

    def end(self) -> None:
        """The supervisor is gone."""
        self.ours.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE_S)
        assert self._ended.wait(PATIENCE_S)
        self.ours.close()
        self._theirs.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    if made.ours.fileno() != -1:
        made.end()


class Answer:
    """Waits for what a method hands over."""

    def __init__(self, ask: Callable[[Callable[[Any], None]], None]) -> None:
        self._there = threading.Event()
        self._value: Any = None
        self.calls = 0
        ask(self._done)

    def _done(self, value: Any) -> None:
        self.calls += 1
        self._value = value
        self._there.set()

    def result(self) -> Any:
        assert self._there.wait(PATIENCE_S)
        return self._value


def test_each_method_reaches_the_supervisor_with_its_arguments(pair: Pair) -> None:
    remote = pair.remote
    for ask in (
        lambda done: remote.load("mnist", 3, done),
        lambda done: remote.load("mnist", None, done),
        lambda done: remote.unload("mnist", 3, done),
        lambda done: remote.unload("mnist", None, done),
        lambda done: remote.set_label("mnist", "stable", 3, done),
        lambda done: remote.set_label("mnist", "stable", None, done),
    ):
        assert Answer(ask).result() is None
    assert pair.fake.asked == [
        ("load", "mnist", 3),
        ("load", "mnist", None),
        ("unload", "mnist", 3),
        ("unload", "mnist", None),
        ("set_label", "mnist", "stable", 3),
        ("set_label", "mnist", "stable", None),
    ]


@pytest.mark.parametrize(
    "error",
    [
        NotFound("version", "mnist/3", "there is no mnist/3"),
        NotFound("model", "mnist", "there is no model mnist"),
        InvalidRequest("label", "expected one, got none"),
        VersionRefused("mnist/3: it is garbage"),
        VersionNotServed("mnist/3 is not served"),
        NotExplicit("by the folder"),
        ModelLoading("mnist is being loaded"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_come_back_as_they_were(pair: Pair, error: ServeError) -> None:
    pair.fake.error = error
    found = Answer(lambda done: pair.remote.load("mnist", 3, done)).result()
    assert type(found) is type(error)
    assert vars(found) == vars(error)
    assert (str(found), found.reason) == (str(error), error.reason)


def test_error_that_has_no_way_back_is_a_fault_of_ours(pair: Pair) -> None:
    pair.fake.error = InternalFault("loading", ValueError("secret"))
    found = Answer(lambda done: pair.remote.load("mnist", 3, done)).result()
    assert isinstance(found, InternalFault)


def test_versions_come_back_as_they_were(pair: Pair) -> None:
    versions = [
        VersionStatus("mnist", 3, VersionState.SERVED, "", ("canary", "stable"), True),
        VersionStatus("mnist", 2, VersionState.REFUSED, "it is garbage"),
        *(VersionStatus("cats", 1, state) for state in VersionState),
    ]
    pair.fake.versions = versions
    assert Answer(pair.remote.statuses).result() == versions


def test_listings_are_asked_for_one_at_a_time_and_begin_after_who_asks(pair: Pair) -> None:
    gate = threading.Event()
    asked: list[int] = []

    def statuses(done: Callable[[list[VersionStatus]], None]) -> None:
        asked.append(len(asked))
        assert gate.wait(PATIENCE_S)
        done([VersionStatus("mnist", len(asked), VersionState.SERVED)])

    pair.fake.statuses = statuses  # type: ignore[method-assign]
    first = Answer(pair.remote.statuses)
    others = [Answer(pair.remote.statuses) for _ in range(5)]
    gate.set()
    assert [one.version for one in first.result()] == [1]
    for other in others:
        assert [one.version for one in other.result()] == [2]
    assert len(asked) == 2
    assert [one.version for one in Answer(pair.remote.statuses).result()] == [3]


def test_listing_that_cannot_be_answered_leaves_the_others(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    gate = threading.Event()
    pair.fake.versions = [VersionStatus("mnist", 3, VersionState.SERVED)]
    reply = pair.reply

    def held(message: AdminReply) -> None:
        assert gate.wait(PATIENCE_S)
        reply(message)

    pair.reply = held  # type: ignore[method-assign]

    def broken(statuses: list[VersionStatus]) -> None:
        raise ValueError(f"cannot write {len(statuses)}")

    first = Answer(pair.remote.statuses)
    pair.remote.statuses(broken)
    last = Answer(pair.remote.statuses)
    gate.set()
    assert first.result() == last.result() == pair.fake.versions
    assert "cannot write 1" in caplog.text


def test_answers_may_come_in_any_order(pair: Pair) -> None:
    pair.fake.held = True
    first = Answer(lambda done: pair.remote.load("mnist", 3, done))
    # In the order of the socket: once this is answered, the first one is there.
    assert Answer(pair.remote.statuses).result() == []
    assert first.calls == 0
    pair.fake.release()
    assert first.result() is None


def test_what_waits_ends_when_the_supervisor_is_gone(pair: Pair) -> None:
    pair.fake.held = True
    waiting = Answer(lambda done: pair.remote.load("mnist", 3, done))
    assert Answer(pair.remote.statuses).result() == []
    pair.end()
    assert isinstance(waiting.result(), Draining)
    later = Answer(lambda done: pair.remote.load("mnist", 3, done))
    assert isinstance(later.result(), Draining)
    assert (waiting.calls, later.calls) == (1, 1)
