"""Models whose versions answer by the label "stable": what a file of labels changes, and when."""

import pytest

from convserve_bundle.labels_file import VersionLabels
from convserve_server.core.administration import VersionState, VersionStatus
from convserve_server.core.errors import NotExplicit, ServeError
from convserve_server.core.policies import ModelPolicy
from convserve_server.process.operations import Operations
from tests.server.process.fake_members import FakeServer, bundle

LABEL = ModelPolicy(rollout="label")


def settle(server: FakeServer) -> None:
    server.scan()
    server.settle()


def move(server: FakeServer, label: str, version: int | None) -> None:
    """Move a label in the file, which no server has seen yet."""
    before = server.labels.get("mnist", VersionLabels())
    server.labels["mnist"] = before.moved(label, version)


def answers(server: FakeServer) -> set[int | None]:
    return {worker.answer() for worker in server.workers.values()}


@pytest.fixture
def server() -> FakeServer:
    """Two workers that answer by mnist/1, which is "stable"."""
    server = FakeServer(mnist=LABEL)
    server.put("mnist/1")
    move(server, "stable", 1)
    settle(server)
    assert answers(server) == {1}
    return server


def test_new_version_is_loaded_by_all_and_answers_no_call_that_asks_for_none(
    server: FakeServer,
) -> None:
    server.put("mnist/2")
    settle(server)
    assert server.served() == ["mnist/2", "mnist/1"]
    assert all(bundle("mnist/2") in worker.loaded for worker in server.workers.values())
    assert answers(server) == {1}


def test_label_moves_forth_and_back_without_loading_anything(server: FakeServer) -> None:
    server.put("mnist/2")
    settle(server)
    for version in (2, 1, 2, 1):
        move(server, "stable", version)
        server.scan()
        server.read_all()
        assert [worker.loading for worker in server.workers.values()] == [[], []]
        assert answers(server) == {version}
    assert server.served() == ["mnist/2", "mnist/1"]


def test_version_before_stays_loaded_though_newer_ones_are_published(server: FakeServer) -> None:
    server.put("mnist/2")
    settle(server)
    move(server, "stable", 2)
    server.put("mnist/3", "mnist/4")
    settle(server)
    assert server.served() == ["mnist/4", "mnist/2", "mnist/1"]
    assert answers(server) == {2}


def test_label_of_a_version_that_is_not_there_yet_stays_until_it_is_loaded(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    move(server, "stable", 3)
    settle(server)
    settle(server)
    assert answers(server) == {1}
    waits = "label stable of mnist waits for version 3, which is not in the models folder; until "
    assert caplog.messages.count(f"{waits}then version 1 has it") == 1
    server.put("mnist/3", "mnist/4")
    server.scan()
    server.read_all()
    assert answers(server) == {1}
    assert any("3, which is being loaded" in message for message in caplog.messages)
    server.settle()
    assert answers(server) == {3}
    assert "label stable of mnist names version 3" in caplog.messages


def test_label_stays_through_two_moves_to_what_is_not_there(server: FakeServer) -> None:
    move(server, "stable", 8)
    settle(server)
    # Of which the version before is 8.
    move(server, "stable", 9)
    settle(server)
    assert answers(server) == {1}


def test_version_with_a_label_that_is_refused_leaves_it_where_it_was(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.put("mnist/2")
    move(server, "stable", 2)
    server.scan()
    while not any(worker.loading for worker in server.workers.values()):
        server.read_all()
    next(worker for worker in server.workers.values() if worker.loading).fail()
    settle(server)
    assert answers(server) == {1}
    assert any(
        "version 2, which cannot be served: is garbage; until then version 1 has it" in message
        for message in caplog.messages
    )


def test_server_that_starts_without_the_labelled_version_answers_by_the_one_before() -> None:
    server = FakeServer(mnist=LABEL)
    server.put("mnist/1", "mnist/2")
    move(server, "stable", 1)
    move(server, "stable", 3)
    settle(server)
    assert answers(server) == {1}


def test_server_that_starts_does_not_answer_by_the_version_before_while_the_right_one_is_slow() -> (
    None
):
    server = FakeServer(1, mnist=LABEL)
    server.put("mnist/1", "mnist/2")
    move(server, "stable", 1)
    move(server, "stable", 2)
    server.scan()
    server.read_all()
    (worker,) = server.workers.values()
    assert [one.bundle.version for one in worker.loading] == [2]
    server.wait(6)
    server.read_all()
    assert [one.bundle.version for one in worker.loading] == [2, 1]
    worker.finish(at=1)
    server.read_all()
    assert worker.listens
    assert worker.table.loading == ("mnist",)
    assert worker.answer() is None
    server.settle()
    assert worker.answer() == 2


def test_without_the_label_calls_that_ask_for_no_version_have_none() -> None:
    server = FakeServer(mnist=LABEL)
    server.put("mnist/1")
    settle(server)
    assert server.served() == ["mnist/1"]
    assert answers(server) == {None}
    move(server, "stable", 1)
    settle(server)
    assert answers(server) == {1}
    move(server, "stable", None)
    settle(server)
    assert answers(server) == {None}


def test_other_labels_have_their_versions_loaded(server: FakeServer) -> None:
    server.put("mnist/2", "mnist/3")
    move(server, "canary", 2)
    settle(server)
    assert server.served() == ["mnist/3", "mnist/2", "mnist/1"]
    assert server.plane.table.labels("mnist") == {"canary": 2, "stable": 1}
    move(server, "canary", None)
    settle(server)
    assert server.served() == ["mnist/3", "mnist/1"]


def test_worker_that_starts_has_the_labels_of_the_others(server: FakeServer) -> None:
    server.put("mnist/2")
    settle(server)
    move(server, "stable", 2)
    server.kill(1)
    worker = server.start(3)
    settle(server)
    assert (worker.answer(), worker.listens) == (2, True)
    assert worker.table.labels("mnist") == {"stable": 2}


def test_idle_model_answers_by_its_label_when_it_is_loaded_again() -> None:
    server = FakeServer(mnist=ModelPolicy(rollout="label", unload_after_s=10.0))
    server.put("mnist/1", "mnist/2")
    move(server, "stable", 1)
    settle(server)
    server.wait(11)
    for key in server.workers:
        server.plane.on_used(key, (), server.now)
    server.plane.advance(server.now)
    server.settle()
    (idle,) = server.plane.table.idle
    assert (server.served(), idle.default) == ([], 1)
    move(server, "stable", 2)
    settle(server)
    assert server.plane.table.default("mnist") == 2
    server.plane.on_wanted("mnist", server.now)
    server.settle()
    assert answers(server) == {2}


def test_file_of_labels_changes_nothing_where_the_rollout_is_newest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = FakeServer(mnist=ModelPolicy(versions=2))
    server.put("mnist/1", "mnist/2")
    move(server, "stable", 1)
    settle(server)
    settle(server)
    assert answers(server) == {2}
    assert server.plane.table.labels("mnist") == {}
    assert caplog.messages == ["mnist/labels.json does not count: rollout is newest"]


def test_rollout_that_is_changed_while_the_server_runs_counts_at_once(server: FakeServer) -> None:
    server.put("mnist/2")
    settle(server)
    server.plane.on_policies(lambda name: ModelPolicy(), server.now)
    server.settle()
    assert (answers(server), server.served()) == ({2}, ["mnist/2"])
    server.plane.on_policies(lambda name: LABEL, server.now)
    settle(server)
    assert answers(server) == {1}


def test_listing_names_what_labels_wait_for(server: FakeServer) -> None:
    operations = Operations(server.plane, 60.0, lambda: server.now)
    server.put("mnist/2")
    settle(server)
    move(server, "stable", 9)
    move(server, "canary", 9)
    settle(server)
    found: list[VersionStatus] = []
    operations.statuses(found.extend)
    assert found == [
        VersionStatus("mnist", 9, VersionState.ABSENT, "labels canary, stable wait for it"),
        VersionStatus("mnist", 2, VersionState.SERVED),
        VersionStatus("mnist", 1, VersionState.SERVED, "", ("stable",), True),
    ]


def test_operator_does_not_move_a_label_beside_the_file(server: FakeServer) -> None:
    operations = Operations(server.plane, 60.0, lambda: server.now)
    ends: list[ServeError | None] = []
    operations.set_label("mnist", "stable", 1, ends.append)
    assert isinstance(ends[0], NotExplicit)
    assert str(ends[0]) == (
        "models.mnist.rollout: expected newest, got label: its labels are those of "
        "mnist/labels.json, where `convserve label` moves them"
    )
