"""How a client says which of its calls can wait."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from convserve import InvalidRequest
from tests.clients.conftest import Connect
from tests.clients.scripted_server import ScriptedServer

BATCH = {"convserve-priority": "batch"}
INTERACTIVE = {"convserve-priority": "interactive"}


def ask_all_ways(client: Any, digits: npt.NDArray[np.uint8], **options: Any) -> None:
    client.classify(digits[0], **options)
    client.classify(digits[:2], **options)  # Two calls.
    client.classify_images(b"one file", **options)
    assert len(list(client.stream([digits[0]], **options))) == 1


@pytest.mark.parametrize(
    ("of_client", "of_call", "sent"),
    [
        ({}, {}, {}),
        ({"priority": "batch"}, {}, BATCH),
        ({}, {"priority": "batch"}, BATCH),
        ({"priority": "batch"}, {"priority": "interactive"}, INTERACTIVE),
    ],
)
def test_priority_is_sent_with_every_call(
    connect: Connect,
    server: ScriptedServer,
    digits: npt.NDArray[np.uint8],
    of_client: dict[str, Any],
    of_call: dict[str, Any],
    sent: dict[str, str],
) -> None:
    ask_all_ways(connect(max_images_per_call=1, **of_client), digits, **of_call)
    assert list(server.metadata) == [sent] * 5


def test_other_priorities_are_refused_before_anything_is_sent(
    connect: Connect, server: ScriptedServer, digits: npt.NDArray[np.uint8]
) -> None:
    message = "^priority: expected 'interactive' or 'batch', got 'high'$"
    with pytest.raises(InvalidRequest, match=message):
        connect(priority="high")
    client = connect()
    with pytest.raises(InvalidRequest, match=message):
        client.classify(digits[0], priority="high")
    with pytest.raises(InvalidRequest, match=message):
        next(client.stream([digits[0]], priority="high"))
    assert len(server.requests) == 0
