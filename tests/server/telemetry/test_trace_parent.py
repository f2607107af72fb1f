"""Which calls are traced, by their header fields."""

import pytest

from convserve_server.telemetry.call_notes import CallTrace
from convserve_server.telemetry.trace_parent import Sampler

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def trace(parent: str | bytes | None, state: str | bytes | None = None) -> CallTrace | None:
    """What becomes of a call with these fields, where others are not traced."""
    fields = {"traceparent": parent, "tracestate": state}
    return Sampler(0.0, lambda batch: None).trace(fields.get)


@pytest.mark.parametrize("flags", ["01", "03", "ff", "0b"])
def test_sampled_call_is_a_part_of_its_callers_trace(flags: str) -> None:
    found = trace(f"00-{TRACE}-{PARENT}-{flags}", "vendor=1")
    assert found is not None
    assert f"{found.trace_id:x}" == TRACE.lstrip("0")
    assert f"{found.parent_id:x}" == PARENT
    assert found.state == "vendor=1"
    assert found.span_id not in (0, found.parent_id)


def test_later_versions_may_have_more_fields() -> None:
    assert trace(f"01-{TRACE}-{PARENT}-01-more") is not None


@pytest.mark.parametrize(
    "parent",
    [
        None,
        "",
        "nonsense",
        f"00-{TRACE}-{PARENT}-00",
        f"00-{TRACE}-{PARENT}-fe",
        f"00-{TRACE}-{PARENT}-1",
        f"00-{TRACE}-{PARENT}-01-more",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01".encode(),
        "1" * 55,
    ],
)
def test_call_that_is_not_sampled_or_says_nothing_valid_is_not_traced(
    parent: str | bytes | None,
) -> None:
    assert trace(parent) is None


@pytest.mark.parametrize("state", [b"vendor=1", "a=" + "x" * 600])
def test_state_that_cannot_be_passed_on_is_left_out(state: str | bytes) -> None:
    found = trace(f"00-{TRACE}-{PARENT}-01", state)
    assert found is not None
    assert found.state == ""


def test_share_is_of_calls_without_a_parent() -> None:
    sampler = Sampler(0.25, lambda batch: None)
    kept = [sampler.trace(lambda name: None) for _ in range(10_000)]
    found = [one for one in kept if one is not None]
    assert 2_000 < len(found) < 3_000
    assert len({one.trace_id for one in found}) == len(found)
    assert not any(one.parent_id for one in found)
