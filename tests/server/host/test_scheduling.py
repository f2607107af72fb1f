"""Threads that do not interrupt others."""

import os
import sys
import threading

import pytest

from convserve_server.host.scheduling import patient_threads

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="SCHED_BATCH is Linux's")


def _policy_of_a_new_thread() -> int:
    policies: list[int] = []
    thread = threading.Thread(target=lambda: policies.append(os.sched_getscheduler(0)))
    thread.start()
    thread.join()
    return policies[0]


def test_threads_that_start_meanwhile_are_patient_and_nobody_else() -> None:
    before = os.sched_getscheduler(0)
    with patient_threads():
        assert _policy_of_a_new_thread() == os.SCHED_BATCH
    assert os.sched_getscheduler(0) == before
    assert _policy_of_a_new_thread() == before


def test_the_policy_is_given_back_after_an_error() -> None:
    before = os.sched_getscheduler(0)
    with pytest.raises(RuntimeError, match="of a test"), patient_threads():
        raise RuntimeError("of a test")
    assert os.sched_getscheduler(0) == before


def test_nothing_changes_where_the_system_does_not_allow_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    before = os.sched_getscheduler(0)
    with patient_threads():
        assert _policy_of_a_new_thread() == before
