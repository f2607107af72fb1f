"""The model of a request, found without parsing it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convserve_protos import classifier_pb2 as pb
from convserve_server.protocols.convserve_v1.requests import named_model

PIXELS = pb.Pixels(height=1, width=1, channels=1, count=1, data=b"x")


@pytest.mark.parametrize("id_", ["", "a", "x" * 127])
@pytest.mark.parametrize("model", ["m", "mnist", "ünïcode", "m" * 127])
def test_model_is_found_behind_any_usual_id(id_: str, model: str) -> None:
    request = pb.ClassifyRequest(id=id_, model=model, pixels=PIXELS)
    if len(model.encode()) < 128:
        assert named_model(request.SerializeToString()) == model


@given(id_=st.text(max_size=300), model=st.text(max_size=300))
def test_what_is_found_is_the_model_or_nothing(id_: str, model: str) -> None:
    request = pb.ClassifyRequest(id=id_, model=model, pixels=PIXELS)
    assert named_model(request.SerializeToString()) in (None, model)


@given(payload=st.binary(max_size=40))
def test_bytes_that_are_no_request_find_nothing_or_a_text(payload: bytes) -> None:
    found = named_model(payload)
    assert found is None or found.encode() in payload


@pytest.mark.parametrize(
    "payload", [b"", b"\x0a", b"\x12", b"\x12\x05ab", b"\x0a\x01", b"\x12\x01\xff"]
)
def test_bytes_that_end_early_raise_nothing(payload: bytes) -> None:
    assert named_model(payload) in (None, "ab")
