"""What operators ask of a control plane: when it is done, and how else it may end."""

import random

import pytest

from convserve_server.core.administration import VersionState, VersionStatus
from convserve_server.core.errors import (
    Draining,
    NotExplicit,
    NotFound,
    NotReady,
    ServeError,
    VersionNotServed,
    VersionRefused,
)
from convserve_server.core.policies import ModelPolicy
from convserve_server.process.operations import Operations
from tests.server.process.fake_members import FakeServer

EXPLICIT = ModelPolicy(control="explicit")


class Ends:
    """Keeps how operations ended."""

    def __init__(self) -> None:
        self.all: list[ServeError | None] = []

    def __call__(self, error: ServeError | None) -> None:
        self.all.append(error)

    def only(self) -> ServeError | None:
        (end,) = self.all
        return end


class Operated:
    """A server with mnist/1 and mnist/2 in its folder, loaded when an operator asks for it."""

    def __init__(self, workers: int = 2) -> None:
        self.server = FakeServer(workers, mnist=EXPLICIT)
        self.operations = Operations(self.server.plane, 60.0, lambda: self.server.now)
        self.server.put("mnist/1", "mnist/2", "cats/1")
        self.settle()
        assert self.server.served() == ["cats/1"]

    def settle(self) -> None:
        self.server.scan()
        self.server.settle()

    def load(self, version: int | None = None, name: str = "mnist") -> Ends:
        ends = Ends()
        self.operations.load(name, version, ends)
        return ends

    def unload(self, version: int | None = None, name: str = "mnist") -> Ends:
        ends = Ends()
        self.operations.unload(name, version, ends)
        return ends

    def label(self, label: str, version: int | None, name: str = "mnist") -> Ends:
        ends = Ends()
        self.operations.set_label(name, label, version, ends)
        return ends

    def states(self) -> dict[str, VersionState]:
        found: list[VersionStatus] = []
        self.operations.statuses(found.extend)
        return {f"{one.name}/{one.version}": one.state for one in found}


@pytest.fixture
def operated() -> Operated:
    return Operated()


def test_load_is_done_when_all_workers_answer_with_the_version(operated: Operated) -> None:
    ends = operated.load()
    operated.server.scan()
    workers = operated.server.workers
    for key in (1, 2):
        operated.server.read_all()
        assert ends.all == []
        workers[key].finish()
    workers[1].read()
    assert ends.all == []
    workers[2].read()
    assert ends.only() is None
    # Nobody has read the message that it counts; all answer with it.
    assert [worker.answer() for worker in workers.values()] == [2, 2]


def test_version_before_is_loaded_beside_the_newest(operated: Operated) -> None:
    for version in (2, 1):
        ends = operated.load(version)
        operated.settle()
        assert ends.only() is None
    assert operated.server.served() == ["cats/1", "mnist/2", "mnist/1"]
    again = operated.load(1)
    assert again.only() is None


def test_unload_is_done_when_no_worker_answers_with_it(operated: Operated) -> None:
    operated.load(1)
    operated.load(2)
    operated.settle()
    ends = operated.unload(2)
    assert ends.all == []
    operated.server.read_all()
    assert ends.only() is None
    assert [worker.answer() for worker in operated.server.workers.values()] == [1, 1]
    everything = operated.unload()
    operated.settle()
    assert everything.only() is None
    assert operated.server.served() == ["cats/1"]
    # Also what newer scans find.
    operated.settle()
    assert operated.server.served() == ["cats/1"]


def test_label_moves_while_a_model_is_idle_and_does_not_wake_it() -> None:
    server = FakeServer(mnist=ModelPolicy(versions=2, unload_after_s=10.0, labels={"stable": 1}))
    operations = Operations(server.plane, 60.0, lambda: server.now)
    server.put("mnist/1", "mnist/2")
    server.scan()
    server.settle()
    server.wait(11)
    for key in server.workers:
        server.plane.on_used(key, (), server.now)
    server.plane.advance(server.now)
    server.settle()
    assert [one.name for one in server.plane.table.idle] == ["mnist"]
    for label, version in (("stable", 2), ("old", 1)):
        ends = Ends()
        operations.set_label("mnist", label, version, ends)
        assert ends.all == []
        server.settle()
        assert ends.only() is None
    ends = Ends()
    operations.set_label("mnist", "next", 3, ends)
    assert isinstance(ends.only(), VersionNotServed)
    assert server.served() == []
    for worker in server.workers.values():
        assert worker.table.labels("mnist") == {"old": 1, "stable": 2}


def test_label_is_done_when_all_workers_know_it(operated: Operated) -> None:
    operated.load(1)
    operated.settle()
    ends = operated.label("stable", 1)
    assert ends.all == []
    operated.server.read_all()
    assert ends.only() is None
    assert operated.server.plane.table.labels("mnist") == {"stable": 1}
    removed = operated.label("stable", None)
    operated.settle()
    assert removed.only() is None
    assert operated.server.plane.table.labels("mnist") == {}


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        ("load cats 1", NotExplicit, "models.cats.control: expected explicit, got poll"),
        ("unload cats 1", NotExplicit, "models.cats.control: expected explicit, got poll"),
        ("load mnist 7", NotFound, "mnist/7 is not in the folder; there: 1, 2"),
        ("unload mnist 1", NotFound, "mnist/1 is not served; there: none"),
        ("label mnist 1", NotFound, "no version of model 'mnist' is served"),
        (
            "label cats 2",
            VersionNotServed,
            "label 'stable': expected a version of cats that is served (1), got 2",
        ),
    ],
)
def test_what_cannot_be_done_is_answered_at_once(
    operated: Operated, action: str, error: type[ServeError], message: str
) -> None:
    what, name, version = action.split()
    if what == "label":
        ends = operated.label("stable", int(version), name)
    else:
        ends = getattr(operated, what)(int(version), name)
    end = ends.only()
    assert type(end) is error
    assert str(end) == message


def test_load_of_a_bad_version_ends_with_the_reason(operated: Operated) -> None:
    ends = operated.load(2)
    operated.server.scan()
    operated.server.read_all()
    operated.server.workers[1].fail("is garbage")
    end = ends.only()
    assert isinstance(end, VersionRefused)
    assert str(end) == "mnist/2 cannot be served: is garbage"
    # Nothing is asked for any more, and the reason is known.
    assert isinstance(operated.load(2).only(), VersionRefused)
    assert operated.states()["mnist/2"] is VersionState.REFUSED


def test_load_of_a_version_that_ends_its_worker_ends_with_the_reason(operated: Operated) -> None:
    ends = operated.load(2)
    operated.server.scan()
    operated.server.read_all()
    operated.server.kill(1, "ended with status -11", explained=True)
    assert isinstance(ends.only(), VersionRefused)


def test_load_goes_on_when_a_worker_is_killed_by_hand(operated: Operated) -> None:
    ends = operated.load(2)
    operated.server.scan()
    operated.server.read_all()
    operated.server.kill(1)
    operated.server.start(1)
    operated.settle()
    assert ends.only() is None


def test_load_ends_when_the_version_is_removed_or_unloaded_meanwhile(operated: Operated) -> None:
    ends = operated.load(2)
    assert operated.unload(2).all == [None]
    assert isinstance(ends.only(), VersionNotServed)
    ends = operated.load(1)
    del operated.server.files["mnist/1"]
    operated.settle()
    assert isinstance(ends.only(), NotFound)


def test_operation_that_takes_too_long_ends(operated: Operated) -> None:
    ends = operated.load(2)
    operated.server.scan()
    operated.server.wait(3 * 60.0 + 29.0)
    assert ends.all == []
    operated.server.wait(2.0)
    assert isinstance(ends.only(), NotReady)


def test_operations_end_when_the_server_stops(operated: Operated) -> None:
    ends = operated.load(2)
    operated.operations.close()
    assert isinstance(ends.only(), Draining)
    operated.settle()
    assert len(ends.all) == 1


def test_states_of_versions(operated: Operated) -> None:
    found, served = VersionState.FOUND, VersionState.SERVED
    assert operated.states() == {"cats/1": served, "mnist/2": found, "mnist/1": found}
    operated.load(2)
    assert operated.states()["mnist/2"] is VersionState.LOADING
    operated.settle()
    assert operated.states()["mnist/2"] is served
    operated.unload(2)
    # The number counts once all have the table; then each unloads.
    while operated.server.served() != ["cats/1"]:
        next(one for one in operated.server.workers.values() if one.inbox).read()
    assert operated.states()["mnist/2"] is VersionState.RETIRING
    operated.settle()
    assert operated.states()["mnist/2"] is found


@pytest.mark.parametrize("seed", range(40))
def test_every_operation_ends_once(seed: int) -> None:
    chance = random.Random(seed)
    operated = Operated(chance.choice([1, 2, 3]))
    server = operated.server
    begun: list[Ends] = []
    for step in range(300):
        version = chance.choice([None, 1, 2, 3])
        choice = chance.random()
        if choice < 0.05:
            begun.append(operated.load(version))
        elif choice < 0.08:
            begun.append(operated.unload(version))
        elif choice < 0.12:
            begun.append(operated.label(chance.choice("ab"), version))
        elif choice < 0.13 and len(server.workers) > 1:
            server.kill(chance.choice(list(server.workers)))
            server.start(f"again {step}")
        elif choice < 0.15:
            server.put("mnist/3")
            server.scan()
        elif choice < 0.7:
            if busy := [one for one in server.workers.values() if one.inbox]:
                chance.choice(busy).read()
        elif busy := [one for one in server.workers.values() if one.loading]:
            one = chance.choice(busy)
            one.finish() if chance.random() < 0.9 else one.fail()
        else:
            server.scan()
        assert all(len(ends.all) <= 1 for ends in begun)
    for _ in range(4):
        operated.settle()
        server.wait(31.0)
    operated.settle()
    assert all(len(ends.all) == 1 for ends in begun)
    assert not any(isinstance(ends.only(), NotReady) for ends in begun)
