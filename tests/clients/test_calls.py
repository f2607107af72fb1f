import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convserve import InvalidRequest
from convserve.calls import ClassifyOptions, split, split_images
from convserve.channel import channel_options
from convserve.settings import Settings


@given(
    count=st.integers(1, 60),
    side=st.integers(2, 12),
    most_images=st.integers(1, 70),
    most_bytes=st.integers(1, 2000),
)
def test_split_loses_nothing_and_keeps_to_the_limits(
    count: int, side: int, most_images: int, most_bytes: int
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 1), np.uint8)
    limits = Settings(server="a:1", max_images_per_call=most_images, max_bytes_per_call=most_bytes)
    parts = split(pixels, limits)
    assert np.array_equal(np.concatenate(parts), pixels)
    assert all(1 <= len(part) <= most_images for part in parts)
    assert all(part.nbytes <= most_bytes or len(part) == 1 for part in parts)
    # As few calls as the limits allow.
    assert all(len(part) == len(parts[0]) for part in parts[:-1])
    fuller = len(parts[0]) + 1
    assert len(parts) == 1 or fuller > most_images or fuller * side * side > most_bytes


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=60),
    most_images=st.integers(1, 70),
    most_bytes=st.integers(1, 100),
)
def test_split_of_files_loses_nothing_and_keeps_to_the_limits(
    sizes: list[int], most_images: int, most_bytes: int
) -> None:
    files = [bytes([index]) * size for index, size in enumerate(sizes)]
    limits = Settings(server="a:1", max_images_per_call=most_images, max_bytes_per_call=most_bytes)
    parts = split_images(files, limits)
    assert [file for part in parts for file in part] == files
    for part in parts:
        assert 1 <= len(part) <= most_images
        assert sum(map(len, part)) <= most_bytes or len(part) == 1
    # No call holds what would have fitted into the one before it.
    for part, following in zip(parts, parts[1:], strict=False):
        fuller = [*part, following[0]]
        assert len(fuller) > most_images or sum(map(len, fuller)) > most_bytes


def test_request_holds_the_files_as_they_are() -> None:
    request = ClassifyOptions("cats-dogs", None, 2).request((b"one", b"two"), "a")
    assert list(request.encoded.images) == [b"one", b"two"]
    assert (request.id, request.model, request.top_k) == ("a", "cats-dogs", 2)


def test_request_holds_the_pixels_in_c_order() -> None:
    photo = np.arange(4 * 6 * 3).astype(np.uint8).reshape(1, 4, 6, 3)
    turned = photo.transpose(0, 2, 1, 3)
    request = ClassifyOptions("mnist", None, None).request(turned, "a")
    pixels = request.pixels
    assert (pixels.count, pixels.height, pixels.width, pixels.channels) == (1, 6, 4, 3)
    assert pixels.data == np.ascontiguousarray(turned).tobytes()
    assert request.id == "a"


@pytest.mark.parametrize("option", ["max_images_per_call", "max_bytes_per_call", "max_in_flight"])
def test_limit_below_one_is_refused(option: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{option}: expected an integer of 1 to .*, got 0"):
        Settings(server="a:1", **{option: 0})  # type: ignore[arg-type]


def test_retries_are_for_classifying_alone_and_hedging_is_off() -> None:
    options = dict(channel_options("a:1"))
    config = json.loads(str(options["grpc.service_config"]))
    (method,) = config["methodConfig"]
    assert method["name"] == [{"service": "convserve.v1.Classifier"}]
    assert "hedgingPolicy" not in method
    assert config["loadBalancingConfig"] == [{"round_robin": {}}]


def test_idle_connections_are_not_pinged_more_than_servers_allow() -> None:
    options = dict(channel_options("a:1"))
    assert int(options["grpc.keepalive_time_ms"]) >= 300_000
    assert options["grpc.keepalive_permit_without_calls"] == 0
