"""Which worker may load what, and what becomes of a bundle that ends one."""

import logging

import pytest

from convserve_server.core.permits import Bundle
from convserve_server.process.trials import Trials

GOOD = Bundle("mnist", 1, "a" * 64)
NEW = Bundle("mnist", 2, "b" * 64)
CATS = Bundle("cats", 1, "c" * 64)


@pytest.fixture
def trials() -> Trials:
    return Trials()


def verdict(trials: Trials, worker: int, bundle: Bundle) -> str:
    return trials.ask(worker, bundle).verdict


def test_one_worker_tries_a_bundle_and_the_others_wait_for_the_outcome(trials: Trials) -> None:
    assert verdict(trials, 1, NEW) == "load"
    assert verdict(trials, 2, NEW) == "wait"
    assert verdict(trials, 1, NEW) == "load"
    assert verdict(trials, 2, CATS) == "load"
    trials.loaded(1, NEW)
    assert [verdict(trials, worker, NEW) for worker in (2, 3)] == ["load", "load"]


def test_bundle_that_cannot_be_loaded_is_tried_by_nobody_else(trials: Trials) -> None:
    trials.ask(1, NEW)
    trials.failed(1, NEW, "is garbage")
    for worker in (1, 2):
        refused = trials.ask(worker, NEW)
        assert (refused.verdict, refused.reason) == ("refused", "is garbage")


def test_failure_of_one_worker_with_a_bundle_that_others_serve_is_its_own(trials: Trials) -> None:
    trials.ask(1, NEW)
    trials.loaded(1, NEW)
    trials.ask(2, NEW)
    trials.failed(2, NEW, "no memory")
    assert verdict(trials, 3, NEW) == "load"


def test_bundle_that_ended_its_worker_is_refused_also_under_another_name(trials: Trials) -> None:
    trials.ask(1, NEW)
    assert trials.ended(1, [NEW], "ended with status -11", known=True) == [NEW]
    for bundle in (NEW, Bundle("copy", 7, NEW.digest)):
        refused = trials.ask(2, bundle)
        assert refused.verdict == "refused"
        assert refused.reason == "the worker that loaded it first ended with status -11"
    assert verdict(trials, 2, Bundle("mnist", 2, "d" * 64)) == "load"


def test_bundle_whose_worker_was_killed_by_hand_has_one_more_chance(trials: Trials) -> None:
    trials.ask(1, NEW)
    assert trials.ended(1, [NEW], "ended with status -9", known=False) == []
    assert verdict(trials, 2, NEW) == "load"
    assert trials.ended(2, [NEW], "ended with status -9", known=False) == [NEW]
    assert verdict(trials, 1, NEW) == "refused"


def test_worker_that_dies_while_it_loads_what_others_serve_refuses_nothing(trials: Trials) -> None:
    trials.ask(1, GOOD)
    trials.loaded(1, GOOD)
    trials.ask(2, GOOD)
    assert trials.ended(2, [GOOD], "ended with status -9", known=True) == []
    assert verdict(trials, 2, GOOD) == "load"


def test_worker_that_dies_with_nothing_to_load_refuses_nothing(trials: Trials) -> None:
    trials.ask(1, NEW)
    assert trials.ended(2, [], "ended with status -9", known=True) == []
    assert verdict(trials, 2, NEW) == "wait"


# A file that changes under the name of a version


def serve(trials: Trials, worker: int, *bundles: Bundle) -> None:
    for bundle in bundles:
        assert verdict(trials, worker, bundle) == "load"
        trials.loaded(worker, bundle)
    trials.serves(worker, frozenset(bundles))


def test_replaced_file_is_refused_also_in_a_restarted_worker_and_named_once(
    trials: Trials, caplog: pytest.LogCaptureFixture
) -> None:
    serve(trials, 1, GOOD)
    serve(trials, 2, GOOD)
    other = Bundle(GOOD.name, GOOD.version, "e" * 64)
    trials.ended(1, [], "ended with status -9", known=True)
    for worker in (1, 2, 1):
        refused = trials.ask(worker, other)
        assert refused.verdict == "refused"
        assert (
            "its file was replaced: expected the one served first, SHA-256 aaaaaaaaaaaa, got"
            in (refused.reason)
        )
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert caplog.records[0].getMessage().startswith("mnist/1: its file was replaced")
    # The file that was served is welcome.
    assert verdict(trials, 1, GOOD) == "load"


def test_version_that_all_have_unloaded_may_be_published_anew(trials: Trials) -> None:
    serve(trials, 1, GOOD)
    serve(trials, 2, GOOD)
    anew = Bundle(GOOD.name, GOOD.version, "e" * 64)
    trials.serves(1, frozenset())
    assert verdict(trials, 1, anew) == "refused"
    trials.serves(2, frozenset())
    assert verdict(trials, 1, anew) == "load"


# Who may accept calls


def test_worker_lacks_the_models_that_only_others_serve(trials: Trials) -> None:
    assert trials.missing(1) == ()
    serve(trials, 1, GOOD, CATS)
    assert trials.missing(1) == ()
    assert trials.missing(2) == ("cats", "mnist")
    # Another version of a model will do.
    serve(trials, 2, NEW)
    assert trials.missing(2) == ("cats",)
    trials.ended(1, [], "ended with status -9", known=True)
    assert trials.missing(2) == ()


# What is wrong with the folder


def test_problem_that_several_workers_see_is_logged_once_until_it_is_gone(
    trials: Trials, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        trials.problem("mnist/v2", "expected a number")
    trials.problem("", "cannot read the folder")
    trials.problem("mnist/v2", "")
    trials.problem("mnist/v2", "")
    trials.problem("mnist/v2", "expected a number")
    logged = [record.getMessage() for record in caplog.records]
    assert logged == [
        "mnist/v2: expected a number",
        "cannot read the folder",
        "mnist/v2: expected a number",
    ]
