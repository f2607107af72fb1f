import pytest

from convserve_trainer.errors import UsageError
from convserve_trainer.host.launcher import ADDRESSES, COUNT, NUMBER, Member, member

SET = {ADDRESSES: "host0:1234", COUNT: "4", NUMBER: "2"}


def test_process_without_the_variables_trains_alone() -> None:
    # A job engine numbers processes that have nothing to do with each other, too.
    assert member({"JOB_COMPLETION_INDEX": "3", "SLURM_PROCID": "0", ADDRESSES: ""}) is None


@pytest.mark.parametrize(
    ("changed", "number"),
    [
        ({}, 2),
        ({NUMBER: "", "JOB_COMPLETION_INDEX": "3"}, 3),
        ({NUMBER: "", "SLURM_PROCID": "0"}, 0),
        ({"SLURM_PROCID": "1"}, 2),
        ({ADDRESSES: "host0:1234,host1:1234,host2:1,host3:1"}, 2),
    ],
)
def test_number_is_that_of_the_launcher_or_of_its_engine(
    changed: dict[str, str], number: int
) -> None:
    assert member(SET | changed) == Member("host0:1234", 4, number)


def test_one_process_trains_alone() -> None:
    assert member(SET | {COUNT: "1", NUMBER: "0"}) is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({ADDRESSES: ""}, f"{ADDRESSES}: expected a value, because {COUNT} is set, got none"),
        ({COUNT: ""}, f"{COUNT}: expected a value, because {ADDRESSES} is set, got none"),
        (
            {NUMBER: ""},
            f"{NUMBER}, JOB_COMPLETION_INDEX or SLURM_PROCID: expected a value, because "
            f"{ADDRESSES} is set, got none",
        ),
        ({NUMBER: "4"}, f"{NUMBER}: expected 0 to 3 for 4 processes ({COUNT}), got 4"),
        (
            {NUMBER: "", "SLURM_PROCID": "9"},
            f"SLURM_PROCID: expected 0 to 3 for 4 processes ({COUNT}), got 9",
        ),
        ({NUMBER: "-1"}, f"{NUMBER}: expected a whole number, 0 or more, got '-1'"),
        ({COUNT: "two"}, f"{COUNT}: expected a whole number, 0 or more, got 'two'"),
        ({COUNT: "0"}, f"{COUNT}: expected 1 or more, got 0"),
        ({ADDRESSES: "host0"}, f"{ADDRESSES}: expected HOST:PORT, got 'host0'"),
        ({ADDRESSES: "host0:70000"}, f"{ADDRESSES}: expected HOST:PORT, got 'host0:70000'"),
        (
            {ADDRESSES: "a:1,b:2"},
            f"{ADDRESSES}: expected one address, or one for each of 4 processes ({COUNT}), got 2",
        ),
    ],
)
def test_half_or_wrong_variables_are_refused(changed: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        member(SET | changed)
    assert str(caught.value) == message
    assert caught.value.status == 2
