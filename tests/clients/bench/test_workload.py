import re

import pytest

from convserve_bench.workload import _fields

UNIT_S = {"u": 1e-6, "m": 1e-3, "S": 1.0}


@pytest.mark.parametrize(
    "timeout_s", [1e-9, 0.2, 10.0, 99.9999999, 100.0, 99_999.5, 1e6, 2_592_000.0]
)
def test_timeout_has_at_most_the_digits_that_grpc_allows(timeout_s: float) -> None:
    value = dict(_fields("localhost:50051", timeout_s))[b"grpc-timeout"].decode()
    match = re.fullmatch(r"([0-9]{1,8})([umS])", value)
    assert match is not None
    number, unit = match.groups()
    sent_s = int(number) * UNIT_S[unit]
    assert timeout_s * (1 - 1e-9) <= sent_s <= timeout_s + UNIT_S[unit]
