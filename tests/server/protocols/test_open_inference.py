"""What clients of Open Inference ask beside inference; streams; whole calls over each front."""

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message
from google.rpc import code_pb2

from convserve_protos import open_inference_pb2 as pb
from convserve_server.core.administration import VersionState, VersionStatus
from convserve_server.core.errors import InternalFault, NotExplicit, NotFound, ServeError
from convserve_server.core.repository import Repository
from convserve_server.core.tables import IdleModel, Table
from convserve_server.engines.signatures import OPEN, TensorSpec
from convserve_server.engines.tensors import DTYPES
from convserve_server.protocols.base import Failure
from convserve_server.protocols.open_inference.service import SERVICE, OpenInference
from convserve_server.protocols.router import Router
from convserve_server.protocols.streams import StreamBudget
from convserve_server.telemetry.statistics import Durations, VersionStatistics
from tests import onnx_models
from tests.bundles import CLASSES, SHAPE, digit_of
from tests.jpegs import jpeg_of
from tests.server.conftest import WAIT_S, Serve, Served
from tests.server.engines.test_any_onnx import ANSWERS
from tests.server.fake_administration import FakeAdministration
from tests.server.in_process_transport import InProcessTransport
from tests.server.open_inference_core import MAX_ROWS, FakeCore, bundle, description
from tests.server.transports.test_conformance import until

STREAM = f"/{SERVICE}/ModelStreamInfer"

OTHER = description(
    "other",
    [TensorSpec("a", "INT64", (2, OPEN)), TensorSpec("b", "BYTES", ())],
    [TensorSpec("c", "FP16", (OPEN,))],
    batched=False,
    version=3,
)


@pytest.fixture
def core() -> FakeCore:
    core = FakeCore(bundle(), bundle(version=7), OTHER)
    core.labels = {"stable": 1}
    core.loading = {"slow"}
    core.unserved = {("broken", 2): "the file is damaged"}
    return core


def service_of(core: Any, **options: Any) -> InProcessTransport:
    transport = InProcessTransport()
    transport.start(Router([OpenInference(core, StreamBudget(2**20), **options)]))
    return transport


def ask(transport: InProcessTransport, method: str, request: Message) -> bytes | Failure:
    return transport.ask(f"/{SERVICE}/{method}", request.SerializeToString()).result(WAIT_S)


def answer(transport: InProcessTransport, method: str, request: Message) -> bytes:
    payload = ask(transport, method, request)
    assert isinstance(payload, bytes), payload
    return payload


def code(transport: InProcessTransport, method: str, request: Message) -> int:
    failure = ask(transport, method, request)
    assert isinstance(failure, Failure)
    return failure.code


# --- health and metadata -------------------------------------------------------------------------


def test_server_is_live_and_ready_once_a_model_is_served(core: FakeCore) -> None:
    for cores, ready in [(core, True), (FakeCore(), False)]:
        transport = service_of(cores)
        live = answer(transport, "ServerLive", pb.ServerLiveRequest())
        assert pb.ServerLiveResponse.FromString(live).live
        payload = answer(transport, "ServerReady", pb.ServerReadyRequest())
        assert pb.ServerReadyResponse.FromString(payload).ready is ready


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [
        ("mnist", "", True),
        ("mnist", "1", True),
        ("mnist", "stable", True),
        ("mnist", "2", False),
        ("mnist", "canary", False),
        ("nothing", "", False),
        ("slow", "", False),
    ],
)
def test_model_that_cannot_be_asked_is_not_ready(
    core: FakeCore, name: str, version: str, ready: bool
) -> None:
    request = pb.ModelReadyRequest(name=name, version=version)
    payload = answer(service_of(core), "ModelReady", request)
    assert pb.ModelReadyResponse.FromString(payload).ready is ready


def test_server_metadata_names_its_extensions(core: FakeCore) -> None:
    payload = answer(service_of(core), "ServerMetadata", pb.ServerMetadataRequest())
    response = pb.ServerMetadataResponse.FromString(payload)
    assert response.name == "convserve"
    assert response.version[0].isdigit()
    assert {"classification", "statistics", "model_repository"} <= set(response.extensions)
    assert not {"system_shared_memory", "sequence", "trace"} & set(response.extensions)


def test_model_metadata_of_a_bundle(core: FakeCore) -> None:
    request = pb.ModelMetadataRequest(name="mnist", version="stable")
    payload = answer(service_of(core), "ModelMetadata", request)
    response = pb.ModelMetadataResponse.FromString(payload)
    assert (response.name, response.platform) == ("mnist", "onnxruntime_onnx")
    assert list(response.versions) == ["7", "1"]
    tensor = pb.ModelMetadataResponse.TensorMetadata
    assert list(response.inputs) == [tensor(name="pixels", datatype="UINT8", shape=[-1, 28, 28, 1])]
    assert list(response.outputs) == [tensor(name="probabilities", datatype="FP32", shape=[-1, 10])]
    assert json.loads(response.properties["labels"])[3] == "digit 3"
    assert json.loads(response.properties["version_labels"]) == {"stable": 1}


def test_model_metadata_of_another_model(core: FakeCore) -> None:
    core.labels = {}
    payload = answer(service_of(core), "ModelMetadata", pb.ModelMetadataRequest(name="other"))
    response = pb.ModelMetadataResponse.FromString(payload)
    assert [list(one.shape) for one in (*response.inputs, *response.outputs)] == [[2, -1], [], [-1]]
    assert [one.datatype for one in response.inputs] == ["INT64", "BYTES"]
    assert set(response.properties) == {"execution_provider"}


def test_model_config_of_a_batched_model_leaves_the_rows_out(core: FakeCore) -> None:
    payload = answer(service_of(core), "ModelConfig", pb.ModelConfigRequest(name="mnist"))
    config = pb.ModelConfigResponse.FromString(payload).config
    assert (config.name, config.platform, config.backend) == (
        "mnist", "onnxruntime_onnx", "onnxruntime",
    )  # fmt: skip
    assert config.max_batch_size == MAX_ROWS
    assert config.HasField("dynamic_batching")
    assert list(config.input) == [pb.ModelInput(name="pixels", data_type=pb.TYPE_UINT8, dims=SHAPE)]
    assert list(config.output) == [
        pb.ModelOutput(name="probabilities", data_type=pb.TYPE_FP32, dims=[CLASSES])
    ]


def test_model_config_of_a_model_that_is_not_batched_has_whole_shapes(core: FakeCore) -> None:
    payload = answer(service_of(core), "ModelConfig", pb.ModelConfigRequest(name="other"))
    config = pb.ModelConfigResponse.FromString(payload).config
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert [(one.data_type, list(one.dims)) for one in config.input] == [
        (pb.TYPE_INT64, [2, -1]),
        (pb.TYPE_STRING, []),
    ]


@pytest.mark.parametrize("method", ["ModelMetadata", "ModelConfig", "ModelStatistics"])
def test_questions_about_models_that_are_not_there(core: FakeCore, method: str) -> None:
    transport = service_of(core)
    kind = getattr(pb, f"{method}Request")
    assert code(transport, method, kind(name="no")) == code_pb2.NOT_FOUND
    assert code(transport, method, kind(name="mnist", version="2")) == code_pb2.NOT_FOUND
    assert code(transport, method, kind(name="mnist", version="00")) == code_pb2.INVALID_ARGUMENT
    assert code(transport, method, kind(name="slow")) == code_pb2.UNAVAILABLE


@pytest.mark.parametrize(
    "method",
    [
        "ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig",
        "ModelStatistics", "RepositoryIndex",
    ],
)  # fmt: skip
def test_bytes_that_are_no_message_are_refused(core: FakeCore, method: str) -> None:
    failure = service_of(core).ask(f"/{SERVICE}/{method}", b"\xff").result(WAIT_S)
    assert isinstance(failure, Failure)
    assert failure.code == code_pb2.INVALID_ARGUMENT
    assert f"inference.{method}Request" in failure.message


def test_idle_models_are_described_without_being_loaded() -> None:
    woken: list[str] = []
    switch = [0]
    limits: Any = None
    repository = Repository(limits, switch, wake=woken.append)
    idle = IdleModel("mnist", (bundle(version=7), bundle()), {"stable": 1}, 0.5)
    assert repository.stage(Table(1, idle=(idle,)))
    switch[0] = 1
    repository.settle()
    assert repository.describe("mnist", None).version == 7
    assert repository.describe("mnist", "stable").version == 1
    assert repository.describe("mnist", 1).version == 1
    for version in (2, "canary"):
        with pytest.raises(NotFound):
            repository.describe("mnist", version)
    assert woken == []


# --- statistics ----------------------------------------------------------------------------------


class FakeStatistics:
    """See Statistics."""

    def versions(self) -> list[VersionStatistics]:
        return [
            VersionStatistics("gone", 1, rows=9),
            VersionStatistics(
                "mnist",
                7,
                last_ms=1234,
                rows=5,
                batches=2,
                success=Durations(4, 400),
                fail=Durations(1, 10),
                queue=Durations(4, 40),
                decode=Durations(2, 20),
                compute=Durations(4, 100),
                by_size={4: Durations(1, 60), 1: Durations(1, 40)},
            ),
        ]


def statistics(
    transport: InProcessTransport, name: str = "", version: str = ""
) -> Sequence[pb.ModelStatistics]:
    request = pb.ModelStatisticsRequest(name=name, version=version)
    payload = answer(transport, "ModelStatistics", request)
    return pb.ModelStatisticsResponse.FromString(payload).model_stats


def test_statistics_are_of_every_version_that_is_served(core: FakeCore) -> None:
    transport = service_of(core, statistics=FakeStatistics())
    found = statistics(transport)
    assert [(one.name, one.version, one.inference_count) for one in found] == [
        ("mnist", "7", 5),
        ("mnist", "1", 0),
        ("other", "3", 0),
    ]
    assert [one.version for one in statistics(transport, "mnist")] == ["7", "1"]
    assert [one.version for one in statistics(transport, "mnist", "stable")] == ["1"]


def test_statistics_have_the_fields_of_triton(core: FakeCore) -> None:
    (one,) = statistics(service_of(core, statistics=FakeStatistics()), "mnist", "7")
    assert (one.last_inference, one.execution_count) == (1234, 2)
    duration = pb.StatisticDuration
    stats = one.inference_stats
    assert stats.success == duration(count=4, ns=400)
    assert stats.fail == duration(count=1, ns=10)
    assert stats.queue == duration(count=4, ns=40)
    # perf_analyzer ends where these three counts differ.
    assert stats.compute_input == duration(count=4, ns=20)
    assert stats.compute_infer == duration(count=4, ns=100)
    assert stats.compute_output == duration(count=4)
    assert [(size.batch_size, size.compute_infer.ns) for size in one.batch_stats] == [
        (1, 40),
        (4, 60),
    ]


def test_statistics_are_zeros_where_nothing_is_counted(core: FakeCore) -> None:
    assert [one.execution_count for one in statistics(service_of(core))] == [0, 0, 0]


def test_statistics_of_a_version_need_a_name(core: FakeCore) -> None:
    request = pb.ModelStatisticsRequest(version="1")
    assert code(service_of(core), "ModelStatistics", request) == code_pb2.INVALID_ARGUMENT


# --- repository ----------------------------------------------------------------------------------


def index(transport: InProcessTransport, *, ready: bool = False) -> list[tuple[str, ...]]:
    payload = answer(transport, "RepositoryIndex", pb.RepositoryIndexRequest(ready=ready))
    models = pb.RepositoryIndexResponse.FromString(payload).models
    return [(one.name, one.version, one.state, one.reason) for one in models]


def test_index_without_an_administration_is_what_this_process_serves(core: FakeCore) -> None:
    served = [("mnist", "7", "READY", ""), ("mnist", "1", "READY", "")]
    other = [("other", "3", "READY", "")]
    broken = [("broken", "2", "UNAVAILABLE", "the file is damaged")]
    assert index(service_of(core)) == [*broken, *served, *other]
    assert index(service_of(core), ready=True) == [*served, *other]


def test_index_of_an_administration_is_the_whole_folder(core: FakeCore) -> None:
    states = {
        VersionState.FOUND: "UNAVAILABLE",
        VersionState.LOADING: "LOADING",
        VersionState.SERVED: "READY",
        VersionState.IDLE: "READY",
        VersionState.RETIRING: "UNLOADING",
        VersionState.REFUSED: "UNAVAILABLE",
        VersionState.ABSENT: "UNAVAILABLE",
    }
    administration = FakeAdministration()
    administration.versions = [
        VersionStatus("mnist", number, state, "why") for number, state in enumerate(states, 1)
    ]
    transport = service_of(core, administration=administration)
    assert index(transport) == [
        ("mnist", str(number), state, "why") for number, state in enumerate(states.values(), 1)
    ]
    assert [one[1] for one in index(transport, ready=True)] == ["3", "4"]


LOAD = pb.RepositoryModelLoadRequest(model_name="mnist")
UNLOAD = pb.RepositoryModelUnloadRequest(
    model_name="mnist",
    parameters={"unload_dependents": pb.ModelRepositoryParameter(bool_param=True)},
)
CHANGES = [("RepositoryModelLoad", LOAD, "load"), ("RepositoryModelUnload", UNLOAD, "unload")]


@pytest.mark.parametrize(("method", "request_", "name"), CHANGES)
def test_models_are_loaded_and_unloaded_where_it_is_allowed(
    core: FakeCore, method: str, request_: Message, name: str
) -> None:
    administration = FakeAdministration()
    transport = service_of(core, administration=administration, may_load=True)
    assert answer(transport, method, request_) == b""
    assert administration.asked == [(name, "mnist", None)]


@pytest.mark.parametrize(("method", "request_", "name"), CHANGES)
def test_models_are_not_changed_where_it_is_not_allowed(
    core: FakeCore, method: str, request_: Message, name: str
) -> None:
    administration = FakeAdministration()
    for options in ({"administration": administration}, {"may_load": True}, {}):
        transport = service_of(core, **options)
        assert code(transport, method, request_) == code_pb2.PERMISSION_DENIED
    assert administration.asked == [], name


@pytest.mark.parametrize(("method", "request_", "name"), CHANGES)
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (NotExplicit("its control is not explicit"), code_pb2.PERMISSION_DENIED),
        (NotFound("model", "mnist", "no such model"), code_pb2.NOT_FOUND),
        (InternalFault("loading", ValueError()), code_pb2.INTERNAL),
    ],
)
def test_errors_of_loading_have_their_statuses(
    core: FakeCore, method: str, request_: Message, name: str, error: ServeError, expected: int
) -> None:
    administration = FakeAdministration(error=error)
    transport = service_of(core, administration=administration, may_load=True)
    assert code(transport, method, request_) == expected, name


@pytest.mark.parametrize(
    ("method", "request_", "message"),
    [
        (
            "RepositoryModelLoad",
            pb.RepositoryModelLoadRequest(
                model_name="mnist", parameters={key: pb.ModelRepositoryParameter(string_param="{}")}
            ),
            "parameters: expected none, since models come from the models folder alone, "
            f"got {key!r}",
        )
        for key in ("config", "file:1/model.onnx")
    ]
    + [
        (
            "RepositoryModelUnload",
            pb.RepositoryModelUnloadRequest(
                model_name="mnist", parameters={"all": pb.ModelRepositoryParameter(bool_param=True)}
            ),
            "parameters: expected unload_dependents or none, got 'all'",
        ),
        (
            "RepositoryModelLoad",
            pb.RepositoryModelLoadRequest(model_name="../mnist"),
            "model_name: expected as a model's name",
        ),
    ],
)
def test_uploads_and_paths_are_refused(
    core: FakeCore, method: str, request_: Message, message: str
) -> None:
    administration = FakeAdministration()
    transport = service_of(core, administration=administration, may_load=True)
    failure = ask(transport, method, request_)
    assert isinstance(failure, Failure)
    assert failure.code == code_pb2.INVALID_ARGUMENT
    assert failure.message.startswith(message)
    assert administration.asked == []


# --- whole calls, over each front ----------------------------------------------------------------


def infer_request(*classes: int, **fields: Any) -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(
        name="pixels", datatype="UINT8", shape=[len(classes), *SHAPE]
    )
    data = b"".join(digit_of(class_).tobytes() for class_ in classes)
    return pb.ModelInferRequest(
        **{"model_name": "mnist", "inputs": [tensor], "raw_input_contents": [data], **fields}
    )


def answers(response: pb.ModelInferResponse) -> list[int]:
    rows = np.frombuffer(response.raw_output_contents[0], "<f4")
    best: list[int] = rows.reshape(response.outputs[0].shape).argmax(axis=1).tolist()
    return best


def infer(served: Served, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    call: Any = served.channel.unary_unary(
        f"/{SERVICE}/ModelInfer",
        pb.ModelInferRequest.SerializeToString,
        pb.ModelInferResponse.FromString,
    )
    response: pb.ModelInferResponse = call(request, timeout=WAIT_S)
    return response


def stream(served: Served, requests: Any) -> Any:
    call: Any = served.channel.stream_stream(
        STREAM,
        pb.ModelInferRequest.SerializeToString,
        pb.ModelStreamInferResponse.FromString,
    )
    return call(requests, timeout=WAIT_S)


def test_each_front_answers_inference(serve: Serve, front: str) -> None:
    served = serve(front)
    response = infer(served, infer_request(3, 5, id="me"))
    assert (response.id, answers(response)) == ("me", [3, 5])
    with pytest.raises(grpc.RpcError) as caught:
        infer(served, infer_request(3, model_name="no"))
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.NOT_FOUND


def test_files_are_classified_and_a_bad_one_is_named(serve: Serve) -> None:
    served = serve("grpcio", photos=True)

    def request(*files: bytes) -> pb.ModelInferRequest:
        tensor = pb.ModelInferRequest.InferInputTensor(
            name="pixels",
            datatype="BYTES",
            shape=[len(files)],
            contents=pb.InferTensorContents(bytes_contents=files),
        )
        return pb.ModelInferRequest(model_name="colours", inputs=[tensor])

    green, blue = jpeg_of("green"), jpeg_of("blue")
    assert answers(infer(served, request(green, blue))) == [1, 2]
    assert len(served.engine.seen) == 1
    for files, index in (([b"no picture"], 0), ([green, b"no picture", blue, b""], 1)):
        with pytest.raises(grpc.RpcError) as caught:
            infer(served, request(*files))
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error.details().startswith(f"inputs[0].contents[{index}]: ")
    # Nothing is computed for a call that has failed.
    assert len(served.engine.seen) == 1


def test_stream_answers_in_order_and_goes_on_after_an_error(serve: Serve, front: str) -> None:
    served = serve(front)
    requests = [
        infer_request(n % 10, id=str(n), **({"model_name": "no"} if n % 3 == 1 else {}))
        for n in range(60)
    ]
    replies = list(stream(served, iter(requests)))
    assert [reply.infer_response.id for reply in replies] == [str(n) for n in range(60)]
    for number, reply in enumerate(replies):
        if number % 3 == 1:
            assert reply.error_message == "no model 'no'; loaded: mnist"
            assert not reply.infer_response.outputs
        else:
            assert reply.error_message == ""
            assert answers(reply.infer_response) == [number % 10]


def test_answer_of_a_stream_waits_for_those_before_it(serve: Serve) -> None:
    served = serve("grpcio")
    served.engine.hold()
    sent = threading.Event()

    def requests() -> Any:
        yield infer_request(4, id="slow")
        yield infer_request(5, id="same", model_name="no")
        # The same id twice is allowed: answers come in order.
        yield infer_request(6, id="same")
        sent.set()

    replies = stream(served, requests())
    assert sent.wait(WAIT_S)
    served.engine.wait_entered()
    until(lambda: served.worker.answered() == 1)
    served.engine.release()
    assert [reply.infer_response.id for reply in replies] == ["slow", "same", "same"]


def test_stream_that_is_cancelled_gives_back_what_waits_for_its_turn(serve: Serve) -> None:
    served = serve("grpcio")
    service: Any = served.worker._router._services[SERVICE]
    budget, streams = service._streams._budget, service._streams
    free = budget.free
    served.engine.hold()
    end = threading.Event()

    def requests() -> Any:
        yield infer_request(4, id="slow")
        for number in range(50):
            yield infer_request(5, id=str(number), model_name="no")
        end.wait(WAIT_S)

    replies = stream(served, requests())
    until(lambda: served.worker.answered() == 50)
    assert budget.free < free
    replies.cancel()
    until(lambda: not streams._open)
    assert budget.free == free
    end.set()
    served.engine.release()


def test_stream_ends_at_what_is_no_request(core: FakeCore) -> None:
    transport = service_of(core)
    good = infer_request(1, id="a").SerializeToString()
    core.run = lambda images: np.zeros((len(images), CLASSES), np.float32)
    written = transport.ask_stream(STREAM, [good, b"\xff", good])
    assert len(written) <= 1


def test_stream_of_open_inference_shares_the_budget(core: FakeCore) -> None:
    """What it holds is given back, also that of answers that wait for others."""
    budget = StreamBudget(2**20)
    service: Any = core
    transport = InProcessTransport()
    transport.start(Router([OpenInference(service, budget)]))
    core.run = lambda images: np.zeros((len(images), CLASSES), np.float32)
    requests = [infer_request(1).SerializeToString()] * 20
    assert len(transport.ask_stream(STREAM, requests)) == 20
    assert budget.free == 2**20


# --- ONNX files of every kind --------------------------------------------------------------------


def call(served: Served, method: str, request: Message, response: type[Message]) -> Any:
    ask: Any = served.channel.unary_unary(
        f"/{SERVICE}/{method}", type(request).SerializeToString, response.FromString
    )
    return ask(request, timeout=WAIT_S)


def test_models_of_every_kind_answer_by_what_their_metadata_state(
    serve: Serve, tmp_path: Path
) -> None:
    for name in ANSWERS:
        onnx_models.write(tmp_path / "models", name, onnx_models.SERVED[name]())
    for name, (made, _) in onnx_models.REFUSED.items():
        onnx_models.write(tmp_path / "models", name, made())
    served = serve("grpcio")
    for name, (batched, values, expected) in ANSWERS.items():
        metadata = call(
            served, "ModelMetadata", pb.ModelMetadataRequest(name=name), pb.ModelMetadataResponse
        )
        arrays = [
            np.asarray(value, DTYPES[one.datatype])
            for one, value in zip(metadata.inputs, values, strict=True)
        ]
        request = pb.ModelInferRequest(
            model_name=name, raw_input_contents=[array.tobytes() for array in arrays]
        )
        for one, array in zip(metadata.inputs, arrays, strict=True):
            request.inputs.add(name=one.name, datatype=one.datatype, shape=array.shape)
        response = infer(served, request)
        assert [one.name for one in response.outputs] == [one.name for one in metadata.outputs]
        found = [
            np.frombuffer(data, DTYPES[one.datatype]).reshape(one.shape).tolist()
            for one, data in zip(response.outputs, response.raw_output_contents, strict=True)
        ]
        assert found == expected, name
        config = call(
            served, "ModelConfig", pb.ModelConfigRequest(name=name), pb.ModelConfigResponse
        ).config
        assert (config.max_batch_size > 0) is batched
    listed = call(
        served, "RepositoryIndex", pb.RepositoryIndexRequest(), pb.RepositoryIndexResponse
    ).models
    reasons = {one.name: one.reason for one in listed if one.state == "UNAVAILABLE"}
    assert set(reasons) == set(onnx_models.REFUSED)
    assert "tensor(string)" in reasons["text"]
    counted = call(
        served, "ModelStatistics", pb.ModelStatisticsRequest(), pb.ModelStatisticsResponse
    ).model_stats
    assert {one.name: one.inference_stats.success.count for one in counted} == {
        name: 1 for name in ANSWERS
    }


def test_values_that_a_model_cannot_compute_are_the_callers(serve: Serve, tmp_path: Path) -> None:
    onnx_models.write(tmp_path / "models", "embedding", onnx_models.embedding(entries=5))
    served = serve("grpcio")
    request = pb.ModelInferRequest(model_name="embedding", raw_input_contents=[b"\7" + b"\0" * 7])
    request.inputs.add(name="ids", datatype="INT64", shape=[1, 1])
    with pytest.raises(grpc.RpcError) as caught:
        infer(served, request)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith("inputs: expected values that the model can compute")
