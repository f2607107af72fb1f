"""What a control plane has its workers do, event by event."""

import logging

import pytest

from convserve_server.core.policies import ModelPolicy
from convserve_server.core.tables import Refusal
from convserve_server.process.control_plane import PATIENCE_S
from convserve_server.process.messages import Commit, Listen, Prepare, Retire, Stage
from tests.server.process.fake_members import FakeServer, bundle


def sent(server: FakeServer, key: int) -> list[type]:
    """The kinds of the messages that a worker has not read."""
    return [type(message) for message in server.workers[key].inbox]


@pytest.fixture
def server() -> FakeServer:
    """Two workers that serve mnist/1."""
    server = FakeServer()
    server.put("mnist/1")
    server.scan()
    server.settle()
    assert all(worker.listens for worker in server.workers.values())
    return server


# At the start


def test_nobody_listens_before_the_folder_was_looked_at() -> None:
    server = FakeServer()
    server.wait(3600)
    server.settle()
    assert not any(worker.listens for worker in server.workers.values())
    server.scan()
    server.settle()
    assert all(worker.listens for worker in server.workers.values())


def test_folder_that_cannot_be_read_at_the_start_serves_nothing() -> None:
    server = FakeServer()
    server.plane.on_scan(None, server.now)
    server.settle()
    assert all(worker.listens for worker in server.workers.values())
    assert server.served() == []


def test_new_file_is_tried_by_one_worker_and_its_times_are_handed_to_the_others() -> None:
    server = FakeServer(3)
    server.put("mnist/1")
    server.scan()
    assert [sent(server, key) for key in (1, 2, 3)] == [[Prepare], [], []]
    server.read_all()
    server.workers[1].finish({1: 0.25, 8: 1.0})
    for key in (2, 3):
        (message,) = (m for m in server.workers[key].inbox if isinstance(m, Prepare))
        assert message == Prepare(bundle("mnist/1"), "/models/mnist/1", {1: 0.25, 8: 1.0})


def test_two_new_files_are_tried_by_two_workers() -> None:
    server = FakeServer()
    server.put("cats/1", "mnist/1")
    server.scan()
    server.read_all()
    assert [[str(one.bundle) for one in server.workers[key].loading] for key in (1, 2)] == [
        ["cats/1"],
        ["mnist/1"],
    ]


def test_copy_of_a_file_that_is_being_tried_waits_for_the_outcome() -> None:
    server = FakeServer()
    server.put("cats/1", "mnist/1", content="the same")
    server.scan()
    server.read_all()
    assert [len(server.workers[key].loading) for key in (1, 2)] == [1, 0]
    server.workers[1].fail("is garbage")
    server.settle()
    assert server.served() == []
    assert [one.reason for one in server.plane.table.refused] == ["is garbage"] * 2


def test_worker_serves_as_soon_as_it_has_all_and_the_other_joins_it() -> None:
    server = FakeServer()
    server.put("mnist/1")
    server.scan()
    server.read_all()
    server.workers[1].finish()
    server.read_all()
    assert server.workers[1].listens
    assert not server.workers[2].listens
    server.workers[2].finish()
    server.read_all()
    assert server.workers[2].listens
    assert [worker.answer() for worker in server.workers.values()] == [1, 1]


def test_model_that_is_slow_to_load_does_not_keep_the_others_waiting() -> None:
    server = FakeServer()
    server.put("aaa/1", "mnist/1", "zzz/1")
    server.scan()
    server.read_all()
    slow, other = server.workers[1], server.workers[2]
    for _ in range(2):
        other.finish()
        server.read_all()
    server.wait(PATIENCE_S - 0.1)
    assert not other.inbox
    server.wait(0.2)
    server.read_all()
    assert other.listens
    assert server.plane.table.loading == ("aaa",)
    assert server.served() == ["mnist/1", "zzz/1"]
    # The one that tries it loads the others beside it.
    slow.finish(at=1)
    server.read_all()
    slow.finish(at=1)
    server.read_all()
    assert [str(one.bundle) for one in slow.loading] == ["aaa/1"]
    assert slow.listens
    server.settle()
    assert server.served() == ["aaa/1", "mnist/1", "zzz/1"]


# A new version


def test_all_change_at_the_write_and_none_before(server: FakeServer) -> None:
    server.put("mnist/2")
    server.scan()
    first, second = server.workers[1], server.workers[2]
    server.read_all()
    first.finish()
    server.read_all()
    assert (first.answer(), second.answer()) == (1, 1)
    second.finish()
    first.read()
    assert (first.answer(), second.answer()) == (1, 1)
    assert sent(server, 2) == [Stage]
    second.read()
    # The last one has it: the number is written, and no message is needed for what follows.
    assert [sent(server, key) for key in (1, 2)] == [[Commit], [Commit]]
    assert (first.answer(), second.answer()) == (2, 2)
    server.settle()
    assert first.loaded == second.loaded == {bundle("mnist/2")}


def test_two_versions_as_the_policy_has_it() -> None:
    server = FakeServer(mnist=ModelPolicy(versions=2))
    server.put("mnist/1", "mnist/2", "mnist/3")
    server.scan()
    server.settle()
    assert server.served() == ["mnist/3", "mnist/2"]
    server.put("mnist/4")
    server.scan()
    server.settle()
    assert server.served() == ["mnist/4", "mnist/3"]


def test_removed_version_serves_until_the_one_before_is_loaded(server: FakeServer) -> None:
    server.put("mnist/2")
    server.scan()
    server.settle()
    del server.files["mnist/2"]
    server.scan()
    server.read_all()
    assert server.served() == ["mnist/2"]
    server.settle()
    assert server.served() == ["mnist/1"]


def test_removed_model_is_unloaded_and_one_out_of_sight_is_not(server: FakeServer) -> None:
    server.put("cats/1")
    server.scan()
    server.settle()
    del server.files["mnist/1"], server.files["cats/1"]
    server.unknown = frozenset({"cats"})
    server.scan()
    server.settle()
    assert server.served() == ["cats/1"]


def test_version_that_nobody_wants_any_more_is_retired_where_it_was_loaded(
    server: FakeServer,
) -> None:
    server.put("mnist/2")
    server.scan()
    server.read_all()
    server.workers[1].finish()
    server.put("mnist/3")
    server.scan()
    assert Retire in sent(server, 1)
    server.settle()
    assert server.served() == ["mnist/3"]
    assert server.workers[1].loaded == {bundle("mnist/3")}
    assert not server.plane.members[1].retiring


# Bad versions


def test_file_that_cannot_be_loaded_is_tried_by_nobody_else(server: FakeServer) -> None:
    server.put("mnist/2")
    server.scan()
    server.read_all()
    server.workers[1].fail("is garbage")
    server.settle()
    assert server.served() == ["mnist/1"]
    assert server.plane.table.refused == (Refusal("mnist", 2, "is garbage"),)
    # Every worker lists it.
    assert all(w.table.refused == server.plane.table.refused for w in server.workers.values())


def test_file_that_a_later_worker_cannot_load_is_refused_for_all(server: FakeServer) -> None:
    server.put("mnist/2")
    server.scan()
    server.read_all()
    server.workers[1].finish()
    server.read_all()
    server.workers[2].fail("no memory")
    server.settle()
    assert server.served() == ["mnist/1"]
    assert server.plane.table.refused == (Refusal("mnist", 2, "no memory"),)
    assert server.workers[1].loaded == {bundle("mnist/1")}


def test_file_that_is_mended_is_loaded(server: FakeServer) -> None:
    server.put("mnist/2")
    server.scan()
    server.read_all()
    server.workers[1].fail()
    server.put("mnist/2", content="mended")
    server.scan()
    server.settle()
    assert server.served() == ["mnist/2"]
    assert server.plane.table.refused == ()


def test_refused_newest_gives_way_to_an_older_one_at_the_start() -> None:
    server = FakeServer()
    server.put("mnist/1", "mnist/2")
    server.scan()
    server.read_all()
    server.workers[1].fail()
    server.scan()
    server.settle()
    assert server.served() == ["mnist/1"]


def test_advice_is_logged_once_whatever_the_number_of_workers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = FakeServer()
    server.put("mnist/1")
    server.scan()
    loading = list(server.workers.values())
    while loading:
        server.read_all()
        for worker in [one for one in loading if one.loading]:
            worker.finish(advice="its graph is slow")
            loading.remove(worker)
    assert [r.getMessage() for r in caplog.records] == ["mnist/1: its graph is slow"]


def test_replaced_file_is_named_once_and_what_is_loaded_serves_on(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.put("mnist/1", content="another")
    server.scan()
    server.scan()
    server.settle()
    assert server.served() == ["mnist/1"]
    (record,) = (r for r in caplog.records if r.levelno == logging.ERROR)
    assert record.getMessage().startswith("mnist/1: its file was replaced: expected the one served")
    # A worker that starts again cannot have what the others serve, and accepts no calls.
    server.kill(1)
    server.start(1)
    server.settle()
    assert not server.workers[1].listens
    assert "accepts no calls until it has each model" in caplog.text
    assert "mnist cannot be loaded" in caplog.text
    # Until nobody serves it.
    server.kill(2)
    server.settle()
    assert server.workers[1].listens
    assert server.plane.table.bundles == {bundle("mnist/1", "another")}


# Deaths


def test_file_that_ends_its_worker_is_refused_under_every_name(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.put("mnist/2")
    server.scan()
    server.read_all()
    how = "ended with status -11"
    assert server.kill(1, how, explained=True) == [bundle("mnist/2")]
    assert "mnist/2 is not served: the worker that loaded it ended with status -11" in caplog.text
    server.put("copy/7", content="mnist/2")
    server.start(1)
    server.scan()
    server.settle()
    assert server.served() == ["mnist/1"]
    assert {one.name for one in server.plane.table.refused} == {"copy", "mnist"}


def test_file_that_a_hanging_worker_has_not_begun_to_load_is_not_to_blame(
    server: FakeServer,
) -> None:
    server.put("mnist/2")
    server.scan()
    assert sent(server, 1) == [Prepare]
    assert server.kill(1, "gave no sign of life", explained=True) == []
    server.settle()
    assert server.served() == ["mnist/2"]


def test_file_whose_worker_was_killed_by_hand_has_one_more_chance(server: FakeServer) -> None:
    server.put("mnist/2")
    server.scan()
    server.read_all()
    assert server.kill(1) == []
    server.read_all()
    assert [str(one.bundle) for one in server.workers[2].loading] == ["mnist/2"]
    assert server.kill(2) == [bundle("mnist/2")]


def test_worker_that_dies_while_it_loads_what_others_serve_refuses_nothing(
    server: FakeServer,
) -> None:
    server.kill(1)
    server.start(1)
    server.read_all()
    assert server.kill(1, explained=True) == []
    server.start(1)
    server.settle()
    assert server.workers[1].listens


def test_failure_with_what_others_serve_is_the_workers_own_and_is_tried_again(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.kill(1)
    worker = server.start(1)
    server.read_all()
    worker.fail("no memory")
    server.settle()
    assert not worker.listens
    assert server.plane.table.refused == ()
    assert "mnist cannot be loaded" in caplog.text
    server.wait(30.0)
    server.settle()
    assert worker.listens


def test_death_before_the_write_lets_the_others_change(server: FakeServer) -> None:
    server.put("mnist/2")
    server.scan()
    server.read_all()
    server.workers[1].finish()
    server.workers[2].read()
    server.workers[2].finish()
    server.workers[2].read()
    assert sent(server, 1) == [Stage]
    assert server.workers[2].answer() == 1
    server.kill(1)
    assert server.workers[2].answer() == 2
    server.start(1)
    server.settle()
    assert server.workers[1].listens
    assert server.workers[1].answer() == 2


def test_death_of_all_begins_anew_with_a_greater_number(server: FakeServer) -> None:
    number = server.number
    server.kill(1)
    server.kill(2)
    server.start(1)
    server.start(2)
    server.settle()
    assert [worker.answer() for worker in server.workers.values()] == [1, 1]
    assert server.number > number


def test_worker_that_joins_during_a_change_has_the_new_table_before_it_listens(
    server: FakeServer,
) -> None:
    server.kill(2)
    server.start(2)
    server.put("mnist/2")
    server.scan()
    server.settle()
    assert [worker.answer() for worker in server.workers.values()] == [2, 2]
    assert all(worker.listens for worker in server.workers.values())


def test_worker_that_does_not_take_the_table_is_late(server: FakeServer) -> None:
    server.put("mnist/2")
    server.scan()
    for key in (1, 2):
        server.read_all()
        server.workers[key].finish()
    assert server.plane.late(server.now + 5, 5.0) == []
    server.workers[1].read()
    assert server.plane.late(server.now + 5.1, 5.0) == [2]
    # We were stopped as well.
    server.plane.excuse(10.0)
    assert server.plane.late(server.now + 5.1, 5.0) == []


def test_leaving_worker_changes_no_more_and_nobody_else_does_before_it_has_left(
    server: FakeServer,
) -> None:
    server.plane.on_leaving(1, server.now)
    server.put("mnist/2")
    server.scan()
    server.settle()
    assert [worker.answer() for worker in server.workers.values()] == [1, 1]
    server.kill(1)
    server.settle()
    assert server.workers[2].answer() == 2


def test_worker_is_sent_listen_once(server: FakeServer) -> None:
    server.put("mnist/2")
    server.scan()
    server.read_all()
    for key in (1, 2):
        server.read_all()
        server.workers[key].finish()
    kinds = []
    for worker in server.workers.values():
        while worker.inbox:
            kinds.append(type(worker.inbox[0]))
            worker.read()
    assert Listen not in kinds


# Policies


def test_labels_name_versions_that_are_served() -> None:
    policy = ModelPolicy(versions=2, labels={"stable": 1, "canary": 2, "gone": 9})
    server = FakeServer(mnist=policy)
    server.put("mnist/1", "mnist/2")
    server.scan()
    server.settle()
    assert server.plane.table.labels("mnist") == {"stable": 1, "canary": 2}


def test_label_of_a_version_that_is_not_served_is_named_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = FakeServer(mnist=ModelPolicy(versions=2, labels={"stable": 1, "next": 3}))

    def named() -> list[str]:
        found = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        caplog.clear()
        return found

    server.put("mnist/1", "mnist/2")
    server.scan()
    # Not while something is being loaded.
    assert named() == []
    server.settle()
    assert named() == ["label next of mnist has no effect: version 3 is not served"]
    server.scan()
    server.settle()
    assert named() == []
    server.put("mnist/3")
    server.scan()
    server.settle()
    assert server.plane.table.labels("mnist") == {"next": 3}
    assert named() == ["label stable of mnist has no effect: version 1 is not served"]


def test_changed_policy_changes_what_is_served(server: FakeServer) -> None:
    server.put("mnist/2")
    server.scan()
    server.settle()
    policy = ModelPolicy(versions=(1,), labels={"stable": 1})
    server.plane.on_policies(lambda name: policy, server.now)
    server.scan()
    server.read_all()
    assert server.served() == ["mnist/2"]
    server.settle()
    assert server.served() == ["mnist/1"]
    assert server.plane.table.labels("mnist") == {"stable": 1}


def test_without_control_the_folder_is_not_looked_at_again() -> None:
    server = FakeServer(mnist=ModelPolicy(control="none"))
    server.put("mnist/1")
    server.scan()
    server.settle()
    server.put("mnist/2")
    del server.files["mnist/1"]
    server.scan()
    server.settle()
    assert server.served() == ["mnist/1"]


def test_explicit_control_loads_nothing_by_itself() -> None:
    server = FakeServer(mnist=ModelPolicy(control="explicit"))
    server.put("mnist/1", "cats/1")
    server.scan()
    server.settle()
    assert server.served() == ["cats/1"]


# Memory


def test_file_that_does_not_fit_is_loaded_by_nobody_and_named_and_others_go_on(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.available = 199
    server.put("big/1")
    server.scan()
    server.wait(1)
    inbox = [message for worker in server.workers.values() for message in worker.inbox]
    assert not any(isinstance(message, Prepare) for message in inbox)
    server.settle()
    assert server.served() == ["mnist/1"]
    (refusal,) = server.plane.table.refused
    assert (refusal.name, refusal.version) == ("big", 1)
    assert "to load a model file of" in refusal.reason
    assert sum("big/1 is not served: memory" in line for line in caplog.messages) == 1


def test_version_that_fits_one_worker_only_is_unloaded_there_before_others_load_it(
    server: FakeServer,
) -> None:
    server.available = 1000
    server.put("big/1")
    server.scan()
    server.read_all()
    (first,) = (worker for worker in server.workers.values() if worker.loading)
    server.available = 300
    first.finish(memory_bytes=700)
    server.wait(1)
    other = next(worker for worker in server.workers.values() if worker is not first)
    assert not any(isinstance(message, Prepare) for message in other.inbox)
    server.settle()
    assert bundle("big/1") not in first.loaded
    assert server.served() == ["mnist/1"]
    assert "for 1 more worker" in server.plane.table.refused[0].reason


def test_version_that_did_not_fit_is_loaded_when_there_is_memory_for_all(
    server: FakeServer,
) -> None:
    server.put("big/1")
    server.scan()
    server.read_all()
    server.available = 300
    (first,) = (worker for worker in server.workers.values() if worker.loading)
    first.finish(memory_bytes=700)
    server.settle()
    # What the first worker gives back is not enough for two: it would be loaded again and again.
    server.available = 1000
    server.wait(1)
    server.settle()
    assert server.served() == ["mnist/1"]
    server.available = 1600
    server.wait(1)
    server.settle()
    assert sorted(server.served()) == ["big/1", "mnist/1"]
    assert server.plane.table.refused == ()


# Models that nobody asks for


def idle_server() -> FakeServer:
    """Two workers that serve mnist/1 and cats/1; mnist is unloaded after 10 s without a call."""
    server = FakeServer(mnist=ModelPolicy(unload_after_s=10.0, labels={"stable": 1}))
    server.put("mnist/1", "cats/1")
    server.scan()
    server.settle()
    assert server.served() == ["cats/1", "mnist/1"]
    return server


def report(server: FakeServer, *names: str) -> None:
    """Every worker reports which models calls have used."""
    for key in server.workers:
        server.plane.on_used(key, names, server.now)
    server.plane.advance(server.now)


def rest(server: FakeServer) -> None:
    server.wait(11)
    report(server)
    server.settle()


def test_model_that_nobody_asks_for_is_unloaded_everywhere_and_stays_in_the_table_as_idle() -> None:
    server = idle_server()
    server.wait(9)
    report(server)
    server.settle()
    assert server.served() == ["cats/1", "mnist/1"]
    server.wait(2)
    report(server)
    server.settle()
    assert server.served() == ["cats/1"]
    (idle,) = server.plane.table.idle
    assert (idle.name, [one.version for one in idle.versions]) == ("mnist", [1])
    assert idle.labels == {"stable": 1}
    assert all(worker.loaded == {bundle("cats/1")} for worker in server.workers.values())


def test_model_that_is_used_stays() -> None:
    server = idle_server()
    for _ in range(5):
        server.wait(9)
        report(server, "mnist")
        server.settle()
    assert server.served() == ["cats/1", "mnist/1"]


def test_model_stays_while_a_worker_has_not_reported_what_calls_have_used() -> None:
    server = idle_server()
    server.wait(15)
    server.plane.on_used(1, (), server.now)
    server.plane.advance(server.now)
    server.settle()
    assert server.served() == ["cats/1", "mnist/1"]
    report(server)
    server.settle()
    assert server.served() == ["cats/1"]


def test_idle_model_is_loaded_by_all_at_once_when_it_is_wanted_and_idle_until_then() -> None:
    server = idle_server()
    rest(server)
    server.plane.on_wanted("mnist", server.now)
    server.read_all()
    assert [len(worker.loading) for worker in server.workers.values()] == [1, 1]
    assert [one.name for one in server.plane.table.idle] == ["mnist"]
    server.settle()
    assert server.served() == ["cats/1", "mnist/1"]
    assert server.plane.table.idle == ()
    rest(server)
    assert server.served() == ["cats/1"]


def test_idle_model_of_several_versions_is_idle_until_all_of_them_are_loaded() -> None:
    policy = ModelPolicy(versions=2, unload_after_s=10.0, labels={"stable": 1})
    server = FakeServer(mnist=policy)
    server.put("mnist/1", "mnist/2")
    server.scan()
    server.settle()
    rest(server)
    assert server.served() == []
    server.plane.on_wanted("mnist", server.now)
    # A call that waits may ask for any of them, by its number or label.
    while server.served() != ["mnist/2", "mnist/1"]:
        assert [len(one.versions) for one in server.plane.table.idle] == [2]
        assert server.served() == []
        server.read_all()
        for worker in server.workers.values():
            if worker.loading:
                worker.finish()
    assert server.plane.table.labels("mnist") == {"stable": 1}


def test_worker_that_starts_while_a_model_is_idle_does_not_load_it() -> None:
    server = idle_server()
    rest(server)
    server.kill(1)
    worker = server.start(3)
    server.settle()
    assert worker.listens
    assert worker.loaded == {bundle("cats/1")}
    assert [one.name for one in worker.table.idle] == ["mnist"]


def test_new_version_of_an_idle_model_is_loaded() -> None:
    server = idle_server()
    rest(server)
    server.put("mnist/2")
    server.scan()
    server.settle()
    assert server.served() == ["cats/1", "mnist/2"]
    rest(server)
    assert [one.version for one in server.plane.table.idle[0].versions] == [2]


def test_idle_model_that_is_removed_is_gone() -> None:
    server = idle_server()
    rest(server)
    del server.files["mnist/1"]
    server.scan()
    server.settle()
    assert server.plane.table.idle == ()
    assert server.served() == ["cats/1"]


def test_idle_model_that_cannot_be_loaded_again_is_refused_and_no_longer_idle() -> None:
    server = idle_server()
    rest(server)
    server.plane.on_wanted("mnist", server.now)
    server.read_all()
    server.workers[1].fail("no memory")
    server.settle()
    server.wait(1)
    server.settle()
    assert server.plane.table.idle == ()
    assert server.plane.table.refused == (Refusal("mnist", 1, "no memory"),)
