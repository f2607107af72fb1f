from datetime import UTC, datetime

import pytest
from grpc_health.v1 import health_pb2

from convserve import Health, ModelInfo, RefusedVersion, ServerUnavailable
from convserve_protos import classifier_pb2
from tests.clients.conftest import Connect
from tests.clients.scripted_server import LABELS, ScriptedServer, model

Status = health_pb2.HealthCheckResponse


def test_models_are_typed_and_in_the_order_of_the_server(
    connect: Connect, server: ScriptedServer
) -> None:
    server.models = [model("letters", 3), model("mnist", 12), model("mnist", 2)]
    server.models[1].default = True
    server.models[1].version_labels.extend(["canary", "stable"])
    found = connect().models()
    assert [(one.name, one.version) for one in found] == [
        ("letters", 3),
        ("mnist", 12),
        ("mnist", 2),
    ]
    assert found[1] == ModelInfo(
        name="mnist",
        version=12,
        labels=tuple(LABELS),
        input_shape=(28, 28, 1),
        kind="digits",
        precision="float32",
        metrics={"accuracy": 0.9912, "loss": 0.027},
        parameters=93322,
        created=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        execution_provider="CPUExecutionProvider",
        manifest=server.models[1].manifest,
        version_labels=("canary", "stable"),
        default=True,
    )
    assert (found[0].version_labels, found[0].default) == ((), False)


def test_versions_that_are_refused_are_listed_with_their_reason(
    connect: Connect, server: ScriptedServer
) -> None:
    assert connect().refused() == []
    server.refused = [classifier_pb2.RefusedVersion(name="mnist", version=13, reason="is garbage")]
    assert connect().refused() == [RefusedVersion(name="mnist", version=13, reason="is garbage")]


def test_model_that_says_little_of_itself_is_listed(
    connect: Connect, server: ScriptedServer
) -> None:
    server.models[0].ClearField("manifest")
    (found,) = connect().models()
    assert (found.kind, found.created, found.labels) == ("", None, ())


@pytest.mark.parametrize(
    ("status", "health"),
    [
        (Status.SERVING, Health.SERVING),
        (Status.NOT_SERVING, Health.NOT_SERVING),
        (Status.UNKNOWN, Health.UNKNOWN),
        (Status.SERVICE_UNKNOWN, Health.SERVICE_UNKNOWN),
        (77, Health.UNKNOWN),
    ],
)
def test_health_returns_each_status(
    connect: Connect, server: ScriptedServer, status: int, health: Health
) -> None:
    server.health = {"": Status.NOT_SERVING, "a.B": status}
    assert connect().health("a.B") is health


def test_health_is_of_the_whole_server_unless_a_service_is_named(
    connect: Connect, server: ScriptedServer
) -> None:
    server.health = {"": Status.SERVING, "a.B": Status.NOT_SERVING}
    assert connect().health() is Health.SERVING


def test_health_of_a_service_that_is_not_there_is_unknown(connect: Connect) -> None:
    assert connect().health("no.Such") is Health.SERVICE_UNKNOWN


def test_health_of_an_absent_server_raises(connect: Connect, server: ScriptedServer) -> None:
    client = connect()
    server.stop()
    with pytest.raises(ServerUnavailable):
        client.health()
