"""Keys, over both fronts: each method, permission and model, allowed and refused."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from convserve_protos import classifier_pb2 as pb
from convserve_protos import open_inference_pb2 as oip
from convserve_server.core.errors import PermissionDenied, Unauthenticated
from convserve_server.protocols.admin.service import Admin
from convserve_server.protocols.base import Call, Caller
from convserve_server.protocols.permissions import RULES
from convserve_server.security.keys import Permission, read_keys
from tests.bundles import write_bundle
from tests.server.conftest import WAIT_S, Serve, Served, answers, request_for
from tests.server.fake_administration import FakeAdministration
from tests.server.keys import key_table, make_key_check, make_rates, metadata_of, reserve, token_of

CLASSIFY = "/convserve.v1.Classifier/Classify"
STREAM = "/convserve.v1.Classifier/StreamClassify"
V2 = "/inference.GRPCInferenceService"
HEALTH = "/grpc.health.v1.Health"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"

STREAMS = ("StreamClassify", "ModelStreamInfer", "Watch", "ServerReflectionInfo")

#: One key for each permission, and others.
KEYS = "".join(
    [
        *(key_table(each, f'permissions = ["{each}"]') for each in Permission),
        key_table("usual"),
        key_table("some", 'models = ["mnist", "none-*"]'),
        key_table("past", "expires = 2020-01-01"),
        '[[key]]\nname = "robot"\ncertificate = "client.test"\n',
    ]
)


def ask(
    served: Served, method: str, payload: bytes = b"", key: str | None = None, *more: bytes
) -> Any:
    """The answers to a call with a key: of a unary method one."""
    channel: Any = served.channel
    metadata = metadata_of(key)
    if method.rpartition("/")[2] in STREAMS:
        call = channel.stream_stream(method)(
            iter([payload, *more]), timeout=WAIT_S, metadata=metadata
        )
        return list(call)
    return channel.unary_unary(method)(payload, timeout=WAIT_S, metadata=metadata)


def refused(make: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """The status with which a call ends, and its message."""
    with pytest.raises(grpc.RpcError) as caught:
        make()
    error: Any = caught.value
    return error.code(), error.details()


def reason_of(error: Any) -> tuple[str, float | None]:
    """The reason of an error, and after how many seconds to retry."""
    reason, after = "", None
    for key, value in error.trailing_metadata():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
                if detail.Unpack(info):
                    reason = info.reason
                if detail.Unpack(retry):
                    after = retry.retry_delay.ToTimedelta().total_seconds()
    return reason, after


NO_KEY = (
    grpc.StatusCode.UNAUTHENTICATED,
    "authorization: expected Bearer and a key, got none",
)
WRONG_KEY = (
    grpc.StatusCode.UNAUTHENTICATED,
    "authorization: expected Bearer and a key that holds, got another",
)


@pytest.fixture
def served(serve: Serve, front: str) -> Served:
    """A server with keys, the service of operators among its services."""
    return serve(
        front,
        key_check=make_key_check(KEYS),
        services=[lambda _: Admin(FakeAdministration())],
    )


def test_every_method_of_a_server_has_its_permission(serve: Serve) -> None:
    served = serve(services=[lambda _: Admin(FakeAdministration())])
    router = served.worker._router
    assert {*router.unary_methods, *router.stream_methods} == RULES.keys()


@pytest.mark.timeout(120)
def test_every_method_needs_a_key_with_its_permission(served: Served) -> None:
    router = served.worker._router
    for method in (*router.unary_methods, *router.stream_methods):
        assert refused(partial(ask, served, method)) == NO_KEY, method
        wanted = RULES[method].permission
        for permission in Permission:
            if permission != wanted:
                assert refused(partial(ask, served, method, b"", permission)) == (
                    grpc.StatusCode.PERMISSION_DENIED,
                    f"permission: expected {wanted}, got a key without it",
                )


@pytest.mark.parametrize(
    ("method", "payload"),
    [
        (CLASSIFY, request_for(7).SerializeToString()),
        (f"{V2}/ServerLive", b""),
        ("/convserve.v1.Classifier/ListModels", b""),
        (f"{HEALTH}/Check", b""),
        (REFLECTION, reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()),
        ("/convserve.v1.Admin/ListVersions", b""),
    ],
)
def test_method_is_allowed_with_its_permission(served: Served, method: str, payload: bytes) -> None:
    assert ask(served, method, payload, RULES[method].permission) is not None


def test_stream_is_allowed_with_its_permission(served: Served) -> None:
    message = pb.StreamClassifyRequest(request=request_for(4, id="a"))
    (payload,) = ask(served, STREAM, message.SerializeToString(), "ask")
    response = pb.StreamClassifyResponse.FromString(payload)
    assert answers(response.response) == [4]


@pytest.mark.parametrize("method", ["/convserve.v1.Classifier/Other", "/a.B/C", f"{V2}/Nothing"])
def test_method_that_does_not_exist_is_only_for_who_has_a_key(served: Served, method: str) -> None:
    assert refused(lambda: ask(served, method)) == NO_KEY
    code, message = refused(lambda: ask(served, method, b"", "health"))
    assert code == grpc.StatusCode.UNIMPLEMENTED
    assert method in message


@pytest.mark.parametrize(
    "value",
    ["", "Bearer", "Bearer ", "Bearer other", "Basic dTpw", token_of("usual"), "Bearer \xe9"],
)
def test_key_that_is_none_of_them_is_refused(value: str) -> None:
    check = make_key_check(KEYS)
    calls: list[Call] = []
    handler = check.unary(CLASSIFY, calls.append)
    with pytest.raises(Exception, match="expected Bearer and a key that holds, got another"):
        handler(_Call(Caller("peer", (("authorization", value),))))
    assert calls == []


def test_method_without_a_permission_is_allowed_to_nobody() -> None:
    handler = make_key_check(KEYS).unary(
        "/new.Service/Method", lambda _: pytest.fail("was handled")
    )
    with pytest.raises(PermissionDenied, match="method: expected one that a key can allow"):
        handler(_Call(Caller("peer", metadata_of("admin"))))
    with pytest.raises(Unauthenticated, match="got none"):
        handler(_Call(Caller("peer", ())))


def test_scheme_may_be_in_any_case_and_the_key_have_space_around_it() -> None:
    handled: list[Call] = []
    handler = make_key_check(KEYS).unary(CLASSIFY, handled.append)
    handler(_Call(Caller("peer", (("authorization", f"bearer  {token_of('usual')} "),))))
    assert handled[0].connection == "key usual"


def test_key_that_has_expired_is_refused(served: Served) -> None:
    assert refused(lambda: ask(served, f"{HEALTH}/Check", b"", "past")) == (
        grpc.StatusCode.UNAUTHENTICATED,
        "authorization: expected a key that holds, got one that expired",
    )


def test_certificate_is_a_key_but_not_beside_a_wrong_one() -> None:
    check = make_key_check(KEYS)
    handled: list[Call] = []
    handler = check.unary(CLASSIFY, handled.append)
    handler(_Call(Caller("peer", (), "client.test")))
    assert handled[0].connection == "key robot"
    for metadata, identity in (
        ((), "other.test"),
        ((("authorization", "Bearer x"),), "client.test"),
    ):
        with pytest.raises(Exception, match="authorization: expected Bearer and a key"):
            handler(_Call(Caller("peer", metadata, identity)))
    assert len(handled) == 1


def test_refused_call_is_not_parsed(served: Served) -> None:
    # Else it would be INVALID_ARGUMENT.
    assert refused(lambda: ask(served, CLASSIFY, b"\xff\xff")) == NO_KEY
    code, _ = refused(lambda: ask(served, CLASSIFY, b"\xff\xff", "list"))
    assert code == grpc.StatusCode.PERMISSION_DENIED


# Models


@pytest.fixture
def several(serve: Serve, front: str) -> Served:
    """The same with the models mnist and secret."""
    served = serve(
        front, key_check=make_key_check(KEYS + '[anonymous]\npermissions = ["health"]\n')
    )
    write_bundle(served.models, name="secret")
    served.worker.control.scan()  # type: ignore[attr-defined]
    return served


def infer(model: str) -> bytes:
    return oip.ModelInferRequest(model_name=model).SerializeToString()


#: Requests that name a model: as clients write them, and as none does, with the name behind all
#: else, or behind one that is allowed.
NAMING: list[tuple[str, Callable[[str], bytes]]] = [
    (CLASSIFY, lambda model: request_for(1, model=model).SerializeToString()),
    (
        CLASSIFY,
        lambda model: (
            request_for(1, model="").SerializeToString()
            + pb.ClassifyRequest(model=model).SerializeToString()
        ),
    ),
    (
        CLASSIFY,
        lambda model: (
            request_for(1).SerializeToString() + pb.ClassifyRequest(model=model).SerializeToString()
        ),
    ),
    (f"{V2}/ModelInfer", infer),
    (f"{V2}/ModelInfer", lambda model: infer("mnist") + infer(model)),
    (f"{V2}/ModelReady", lambda m: oip.ModelReadyRequest(name=m).SerializeToString()),
    (f"{V2}/ModelMetadata", lambda m: oip.ModelMetadataRequest(name=m).SerializeToString()),
    (f"{V2}/ModelConfig", lambda m: oip.ModelConfigRequest(name=m).SerializeToString()),
    (
        f"{V2}/ModelStatistics",
        lambda m: oip.ModelStatisticsRequest(name=m).SerializeToString(),
    ),
]


def test_model_of_others_is_as_one_that_does_not_exist(several: Served) -> None:
    for method, payload_of in NAMING:
        found = {
            name: refused(partial(ask, several, method, payload_of(name), "some"))
            for name in ("secret", "absent")
        }
        assert found["secret"][1].replace("secret", "absent") == found["absent"][1]
        assert found["secret"] == (
            grpc.StatusCode.PERMISSION_DENIED,
            "model: expected one of this key, got 'secret'",
        )


@pytest.mark.parametrize("front", ["grpcio"], indirect=True)
def test_unknown_model_that_a_key_could_see_names_only_those_that_it_sees(several: Served) -> None:
    payload = request_for(1, model="none-7").SerializeToString()
    assert refused(lambda: ask(several, CLASSIFY, payload, "some")) == (
        grpc.StatusCode.NOT_FOUND,
        "no model 'none-7'; loaded: mnist",
    )
    assert refused(lambda: ask(several, CLASSIFY, payload, "usual")) == (
        grpc.StatusCode.NOT_FOUND,
        "no model 'none-7'; loaded: mnist, secret",
    )


@pytest.mark.parametrize("front", ["grpcio"], indirect=True)
def test_lists_have_only_the_models_that_a_key_sees(several: Served) -> None:
    (several.models / "secret" / "2").mkdir()
    (several.models / "secret" / "2" / "model.onnx").write_bytes(b"damaged")
    several.worker.control.scan()  # type: ignore[attr-defined]

    def listed(key: str) -> list[set[str]]:
        v1 = pb.ListModelsResponse.FromString(
            ask(several, "/convserve.v1.Classifier/ListModels", b"", key)
        )
        index = oip.RepositoryIndexResponse.FromString(
            ask(several, f"{V2}/RepositoryIndex", b"", key)
        )
        statistics = oip.ModelStatisticsResponse.FromString(
            ask(several, f"{V2}/ModelStatistics", b"", key)
        )
        health = health_pb2.HealthListResponse.FromString(ask(several, f"{HEALTH}/List", b"", key))
        return [
            {one.name for one in v1.models} | {one.name for one in v1.refused},
            {one.name for one in index.models},
            {one.name for one in statistics.model_stats},
            set(health.statuses) - {"", "convserve.v1.Classifier", V2.strip("/")},
        ]

    assert listed("usual") == [{"mnist", "secret"}] * 4
    assert listed("some") == [{"mnist"}] * 4


@pytest.mark.parametrize("front", ["grpcio"], indirect=True)
def test_health_of_a_model_is_only_for_who_may_see_it(several: Served) -> None:
    def check(model: str, key: str | None) -> object:
        payload = health_pb2.HealthCheckRequest(service=model).SerializeToString()
        return ask(several, f"{HEALTH}/Check", payload, key)

    assert check("mnist", "some")
    assert check("secret", "usual")
    assert check("", None)
    assert check("convserve.v1.Classifier", None)
    for model, key in (("secret", "some"), ("absent", "some"), ("mnist", None)):
        assert refused(partial(check, model, key)) == (
            grpc.StatusCode.NOT_FOUND,
            f"unknown service {model!r}",
        )
    channel: Any = several.channel
    for model, status in (("secret", "SERVICE_UNKNOWN"), ("mnist", "SERVING")):
        payload = health_pb2.HealthCheckRequest(service=model).SerializeToString()
        call = channel.stream_stream(f"{HEALTH}/Watch")(
            iter([payload]), timeout=WAIT_S, metadata=metadata_of("some")
        )
        found = health_pb2.HealthCheckResponse.FromString(next(call)).status
        assert health_pb2.HealthCheckResponse.ServingStatus.Name(found) == status
        call.cancel()


# Rates, streams, fairness


def test_calls_over_the_rate_are_refused_and_say_when_to_retry(serve: Serve, front: str) -> None:
    clock = Clock()
    check = make_key_check(key_table("web", "rate = 10", "burst = 2"), make_rates(clock))
    served = serve(front, key_check=check)
    payload = request_for(3).SerializeToString()
    for _ in range(2):
        ask(served, CLASSIFY, payload, "web")
    with pytest.raises(grpc.RpcError) as caught:
        ask(served, CLASSIFY, payload, "web")
    error: Any = caught.value
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == "rate: expected at most 10 in a second, got more"
    assert reason_of(error) == ("RATE_LIMITED", 0.1)
    clock.now += 0.1
    ask(served, CLASSIFY, payload, "web")


def test_calls_over_the_quota_are_refused_until_tomorrow(serve: Serve) -> None:
    date = Clock(86400.0 * 20_000 + 100)
    rates = make_rates(wall_clock=date)
    served = serve(key_check=make_key_check(key_table("web", "quota_per_day = 1"), rates))
    ask(served, f"{HEALTH}/Check", b"", "web")
    with pytest.raises(grpc.RpcError) as caught:
        ask(served, f"{HEALTH}/Check", b"", "web")
    error: Any = caught.value
    assert error.details() == "quota_per_day: expected at most 1 calls, got more"
    assert reason_of(error) == ("QUOTA_EXCEEDED", 86300.0)


@pytest.mark.parametrize("api", ["classify", "infer"])
def test_images_over_their_rate_are_refused(serve: Serve, api: str) -> None:
    clock = Clock()
    rates = make_rates(clock)
    served = serve(key_check=make_key_check(key_table("web", "images_rate = 10"), rates))
    if api == "classify":
        method, payload = CLASSIFY, request_for(1, 2, 3, 4).SerializeToString()
    else:
        method = f"{V2}/ModelInfer"
        request = request_for(1, 2, 3, 4)
        tensor = oip.ModelInferRequest.InferInputTensor(
            name="pixels", datatype="UINT8", shape=[4, 28, 28, 1]
        )
        payload = oip.ModelInferRequest(
            model_name="mnist", inputs=[tensor], raw_input_contents=[request.pixels.data]
        ).SerializeToString()
    ask(served, method, payload, "web")
    with pytest.raises(grpc.RpcError) as caught:
        ask(served, method, payload, "web")
    assert reason_of(caught.value) == ("RATE_LIMITED", 0.3)
    clock.now += 0.31
    ask(served, method, payload, "web")


def test_messages_of_a_stream_are_calls_of_the_rate(serve: Serve) -> None:
    check = make_key_check(key_table("web", "rate = 1", "burst = 3"), make_rates(Clock()))
    served = serve(key_check=check)
    messages = [
        pb.StreamClassifyRequest(request=request_for(1, id=str(number))).SerializeToString()
        for number in range(4)
    ]
    payloads = ask(served, STREAM, messages[0], "web", *messages[1:])
    responses = [pb.StreamClassifyResponse.FromString(each) for each in payloads]
    # The stream itself was the first call.
    codes = sorted(each.error.code for each in responses)
    assert codes == [0, 0, code_pb2.RESOURCE_EXHAUSTED, code_pb2.RESOURCE_EXHAUSTED]


class Messages:
    """What a stream sends, one when the test says so."""

    def __init__(self) -> None:
        self._go = threading.Semaphore(0)
        self.ended = False

    def __iter__(self) -> Iterator[bytes]:
        number = 0
        while self._go.acquire() and not self.ended:
            number += 1
            request = request_for(1, id=str(number))
            yield pb.StreamClassifyRequest(request=request).SerializeToString()

    def send(self) -> None:
        self._go.release()

    def end(self) -> None:
        self.ended = True
        self._go.release()


def test_key_that_is_revoked_ends_its_streams_at_the_next_message(serve: Serve, front: str) -> None:
    rates = make_rates()
    check = make_key_check(key_table("web") + key_table("other"), rates)
    served = serve(front, key_check=check)
    messages = Messages()
    channel: Any = served.channel
    call = channel.stream_stream(STREAM)(
        iter(messages), timeout=WAIT_S, metadata=metadata_of("web")
    )
    messages.send()
    assert pb.StreamClassifyResponse.FromString(next(call)).HasField("response")
    check.use(reserve(rates, read_keys(key_table("web", 'models = ["*"]'))))
    messages.send()
    assert pb.StreamClassifyResponse.FromString(next(call)).HasField("response")
    check.use(reserve(rates, read_keys(key_table("other"))))
    messages.send()
    assert refused(lambda: next(call)) == WRONG_KEY
    messages.end()


def test_key_that_is_revoked_ends_its_watch_with_the_next_status(serve: Serve) -> None:
    rates = make_rates()
    check = make_key_check(key_table("web"), rates)
    served = serve(key_check=check)
    channel: Any = served.channel
    payload = health_pb2.HealthCheckRequest(service="mnist").SerializeToString()
    call = channel.stream_stream(f"{HEALTH}/Watch")(
        iter([payload]), timeout=WAIT_S, metadata=metadata_of("web")
    )
    next(call)
    check.use(reserve(rates, read_keys(key_table("other"))))
    served.worker._health.set("mnist", False)
    assert refused(lambda: next(call)) == WRONG_KEY


def test_models_are_loaded_by_keys_with_the_permission_and_only_those_that_they_see(
    serve: Serve,
) -> None:
    keys = "".join(
        [
            key_table("admin", 'permissions = ["admin"]'),
            key_table("other", 'permissions = ["admin"]', 'models = ["other"]'),
            key_table("usual"),
        ]
    )
    served = serve(
        key_check=make_key_check(keys),
        repository_calls="on",
        by_model={"second": {"control": "explicit"}},
    )
    write_bundle(served.models, name="second")
    served.worker.control.scan()  # type: ignore[attr-defined]
    load = oip.RepositoryModelLoadRequest(model_name="second").SerializeToString()
    for key, message in (
        ("usual", "permission: expected admin, got a key without it"),
        ("other", "model: expected one of this key, got 'second'"),
    ):
        code, got = refused(partial(ask, served, f"{V2}/RepositoryModelLoad", load, key))
        assert (code, got) == (grpc.StatusCode.PERMISSION_DENIED, message)
    ask(served, f"{V2}/RepositoryModelLoad", load, "admin")
    unload = oip.RepositoryModelUnloadRequest(model_name="second").SerializeToString()
    ask(served, f"{V2}/RepositoryModelUnload", unload, "admin")


def test_calls_of_a_key_share_one_turn_whatever_their_connections() -> None:
    check = make_key_check(KEYS + '[anonymous]\npermissions = ["ask"]\nmodels = ["*"]\n')
    turns: list[str] = []
    handler = check.unary(CLASSIFY, lambda call: turns.append(call.connection))
    for peer in ("ipv4:1", "ipv4:2"):
        handler(_Call(Caller(peer, metadata_of("usual"))))
        handler(_Call(Caller(peer, ())))
    assert turns == ["key usual", "ipv4:1", "key usual", "ipv4:2"]


class Clock:
    """Time that a test sets."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class _Call(Call):
    """A call that nobody answers."""

    def __init__(self, caller: Caller) -> None:
        super().__init__(CLASSIFY, request_for(1).SerializeToString(), None, caller.peer)
        self._caller = caller

    def caller(self) -> Caller:
        return self._caller

    def send(self, payload: bytes) -> bool:
        raise AssertionError

    send_failure = send  # type: ignore[assignment]
