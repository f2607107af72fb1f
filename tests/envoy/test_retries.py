"""What Envoy tries again, and how often, before a server that always fails."""

import grpc
import pytest

from convserve import AsyncClient, Client, ConvserveError, ServerBusy, ServerUnavailable
from tests.bundles import digit_of
from tests.clients.scripted_server import Answer, Failure, ScriptedServer
from tests.envoy.conftest import StartEnvoy

pytestmark = pytest.mark.envoy


def failing(code: grpc.StatusCode) -> Answer:
    def fail(_: object) -> object:
        raise Failure(code, "scripted")

    return fail  # type: ignore[return-value]  # It never returns.


@pytest.mark.parametrize(
    ("code", "error", "tries"),
    [
        (grpc.StatusCode.UNAVAILABLE, ServerUnavailable, 4),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ServerBusy, 1),
        (grpc.StatusCode.INTERNAL, ConvserveError, 1),
    ],
)
def test_unavailable_alone_is_tried_again_and_by_envoy_alone(
    scripted: ScriptedServer,
    start_envoy: StartEnvoy,
    code: grpc.StatusCode,
    error: type[ConvserveError],
    tries: int,
) -> None:
    envoy = start_envoy(scripted.address)
    scripted.answer = failing(code)
    with (
        Client(envoy.address, model="mnist", retry_unavailable=False) as client,
        pytest.raises(error, match="scripted"),
    ):
        client.classify(digit_of(1))
    assert len(scripted.requests) == tries


async def test_tries_of_client_and_envoy_multiply_where_both_have_them(
    scripted: ScriptedServer, start_envoy: StartEnvoy
) -> None:
    envoy = start_envoy(scripted.address)
    scripted.answer = failing(grpc.StatusCode.UNAVAILABLE)
    async with AsyncClient(envoy.address, model="mnist", timeout=60.0) as client:
        with pytest.raises(ServerUnavailable):
            await client.classify(digit_of(1))
    assert len(scripted.requests) == 4 * 4


def test_items_of_a_stream_are_not_tried_again(
    scripted: ScriptedServer, start_envoy: StartEnvoy
) -> None:
    envoy = start_envoy(scripted.address)
    streams = []

    def end(messages: object) -> object:
        streams.append(messages)
        raise Failure(grpc.StatusCode.UNAVAILABLE, "scripted")

    scripted.answer_stream = end  # type: ignore[assignment]  # It never returns.
    with (
        Client(envoy.address, model="mnist", retry_unavailable=False) as client,
        pytest.raises(ServerUnavailable, match="scripted"),
    ):
        list(client.stream([digit_of(1)]))
    assert len(streams) == 1
