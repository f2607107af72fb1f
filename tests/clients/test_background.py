"""Pixels of digits on another ground than black: a warning, once for each client."""

import warnings

import numpy as np
import numpy.typing as npt
import pytest

from convserve_protos import bundle_pb2
from tests.clients.conftest import Connect
from tests.clients.scripted_server import ScriptedServer, expected_label, model

Digits = npt.NDArray[np.uint8]


def _written(ground: int, ink: int) -> Digits:
    """A stroke on an even ground: uint8 [28, 28]."""
    picture = np.full((28, 28), ground, np.uint8)
    picture[5:23, 12:16] = ink
    return picture


@pytest.mark.parametrize(("ground", "ink"), [(255, 0), (100, 160)], ids=["inverted", "grey"])
def test_ground_that_is_not_black_warns_once(
    connect: Connect, server: ScriptedServer, ground: int, ink: int
) -> None:
    client = connect()
    picture = _written(ground, ink)
    with pytest.warns(UserWarning, match=f"is {ground} of 255, expected near 0") as messages:
        answer = client.classify(picture)
    assert len(messages) == 1
    assert answer.label == expected_label(picture)
    lists = server.lists
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client.classify(picture)
    assert server.lists == lists


@pytest.mark.parametrize("noise", [0, 20])
def test_black_ground_costs_no_call_and_warns_not(
    connect: Connect, server: ScriptedServer, noise: int
) -> None:
    picture = np.maximum(
        _written(0, 255), np.random.default_rng(0).integers(0, noise + 1, (28, 28), np.uint8)
    )
    connect().classify(np.stack([picture] * 3))
    assert server.lists == 0


def test_picture_without_an_even_ground_warns_not(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    connect().classify(digits)
    assert server.lists == 0


def test_models_of_other_kinds_may_have_any_ground(
    connect: Connect, server: ScriptedServer
) -> None:
    server.models = [model("mnist", kind=bundle_pb2.IMAGE_KIND_PIXELS)]
    connect().classify(_written(255, 0))
    assert server.lists == 1


def test_answer_is_given_where_the_models_cannot_be_listed(
    connect: Connect, server: ScriptedServer
) -> None:
    server.models = []
    picture = _written(255, 0)
    assert connect().classify(picture).label == expected_label(picture)
