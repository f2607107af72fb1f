import math

from convserve_server.transports.ages import new_age_s


def test_ages_differ_and_are_near_what_is_asked_for() -> None:
    ages = {new_age_s(100.0) for _ in range(50)}
    assert len(ages) > 40
    assert all(90.0 <= age <= 110.0 for age in ages)


def test_connections_without_an_age_never_end() -> None:
    assert new_age_s(0.0) == math.inf
