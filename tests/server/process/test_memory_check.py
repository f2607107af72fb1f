"""Whether a model version fits into memory."""

import pytest

from convserve_server.process.memory_check import MemoryCheck

MIB = 2**20


def check(available_mib: int) -> MemoryCheck:
    return MemoryCheck(lambda: available_mib * MIB, 64 * MIB)


def test_a_file_of_which_two_copies_fit_may_be_loaded() -> None:
    assert check(264).refusal_of_first(100 * MIB) == ""


def test_a_file_of_which_two_copies_do_not_fit_is_refused_with_the_sizes() -> None:
    assert check(263).refusal_of_first(100 * MIB) == (
        "memory: expected 200 MiB to load a model file of 100 MiB, got 199 MiB beside 64 MiB for "
        "requests"
    )


@pytest.mark.parametrize(("available_mib", "fits"), [(364, True), (363, False)])
def test_what_the_first_worker_took_is_asked_for_each_of_the_others(
    available_mib: int, fits: bool
) -> None:
    refusal = check(available_mib).refusal_of_others(10 * MIB, 140 * MIB, workers=2)
    assert (refusal == "") == fits
    assert fits or "expected 300 MiB for 2 more workers, got 299 MiB" in refusal


def test_no_less_than_the_file_is_asked_for_where_a_worker_had_memory_left() -> None:
    assert check(84).refusal_of_others(10 * MIB, 0, workers=1) == ""
    assert "expected 20 MiB for 1 more worker" in check(83).refusal_of_others(10 * MIB, 0, 1)


def test_a_single_worker_needs_no_more() -> None:
    assert check(0).refusal_of_others(10 * MIB, 140 * MIB, workers=0) == ""
