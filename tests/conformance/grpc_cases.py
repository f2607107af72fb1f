"""What is right over gRPC."""

import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc
import numpy as np

from tests.conformance import messages
from tests.conformance.grpc_server import (
    NOT_DONE,
    UNKNOWN_NAME,
    Answer,
    GrpcServer,
    check_model,
    check_output,
    new_channel,
    outputs_of,
    parsed,
    raw_request,
    refused,
)
from tests.conformance.models import (
    Question,
    adder,
    extreme_question,
    identity_question,
    repeater,
    some_shape,
    sum_question,
    zero_question,
)
from tests.conformance.suite import Case, NotApplicable, Violation, expect
from tests.conformance.tensors import DATATYPES, equal

_SPEC = "inference_grpc.md"
HEALTH = f"{_SPEC}#health"
METADATA = f"{_SPEC}#metadata"
INFERENCE = f"{_SPEC}#inference"
TENSORS = f"{_SPEC}#tensor-data"
EXTENSIONS = "Triton: protocol extensions"
GRPC = "gRPC: statuscodes.md"

CALLERS = 16
_CALLS = 20

Check = Callable[[GrpcServer], None]


def cases() -> Iterator[Case[GrpcServer]]:
    """All of them."""
    table: list[tuple[str, str, str, Check]] = [
        ("health", "server live", HEALTH, server_live),
        ("health", "server ready", HEALTH, server_ready),
        ("health", "model ready", HEALTH, model_ready),
        ("health", "version ready", HEALTH, version_ready),
        ("health", "unknown model is not ready", HEALTH, unknown_model_is_not_ready),
        ("health", "unknown version is not ready", HEALTH, unknown_version_is_not_ready),
        ("metadata", "server", METADATA, server_metadata),
        ("metadata", "each model", METADATA, models_metadata),
        ("metadata", "each version", METADATA, versions_metadata),
        ("metadata", "batch sizes are as stated", METADATA, batch_sizes_as_stated),
        ("metadata", "answers are as stated", METADATA, answers_as_stated),
        ("infer", "raw contents", INFERENCE, raw_contents),
        ("infer", "typed contents", INFERENCE, typed_contents),
        ("infer", "several rows", INFERENCE, several_rows),
        ("infer", "extreme values, raw", TENSORS, extreme_raw),
        ("infer", "extreme values, typed", TENSORS, extreme_typed),
        ("infer", "inputs in another order", INFERENCE, inputs_reversed),
        ("infer", "one output of two", INFERENCE, one_output),
        ("infer", "both outputs, by name", INFERENCE, both_outputs),
        ("infer", "outputs in another order", INFERENCE, outputs_reversed),
        ("infer", "version by number", INFERENCE, version_by_number),
        ("infer", "answer names model and version", INFERENCE, names_model_and_version),
        ("infer", "no rows", TENSORS, no_rows),
        ("infer", "fields that the server does not know", INFERENCE, unknown_fields),
        ("infer", "parameters that the server does not know", f"{_SPEC}#parameters",
         unknown_parameters),
        ("ids", "repeated", INFERENCE, partial(id_is_repeated, "the id of a request")),
        ("ids", "of letters of many scripts", INFERENCE,
         partial(id_is_repeated, "\u0442\u0435\u0441\u0442 \u4e2d\u6587 \U0001f600 \u05d0\u05d1")),
        ("ids", "with control characters", INFERENCE, partial(id_is_repeated, "a\x00b\nc\x7f")),
        ("ids", "of 64 KiB", INFERENCE, partial(id_is_repeated, "i" * (64 << 10), may_refuse=True)),
        ("ids", "none", INFERENCE, no_id),
        ("concurrency", "16 threads, one connection", INFERENCE, one_connection),
        ("concurrency", "16 threads, 16 connections", INFERENCE, many_connections),
        ("concurrency", "good ones beside bad ones", INFERENCE, beside_bad_ones),
        ("concurrency", "tensors of sizes that differ", INFERENCE, sizes_differ),
        ("concurrency", "calls that are cancelled", GRPC, cancelled),
        ("concurrency", "calls without time", GRPC, without_time),
        ("messages", "compressed by gzip", GRPC, compressed),
        ("pictures", "PNG, raw and typed", "JPEG and PNG as BYTES", pictures),
        ("extensions", "model configuration", EXTENSIONS, model_config),
        ("extensions", "configuration of an unknown model", EXTENSIONS, unknown_config),
        ("extensions", "statistics count", EXTENSIONS, statistics_count),
        ("extensions", "statistics of an unknown model", EXTENSIONS, unknown_statistics),
        ("extensions", "repository index", EXTENSIONS, repository_index),
        ("extensions", "load of an unknown model", EXTENSIONS, unknown_load),
        ("extensions", "unload of an unknown model", EXTENSIONS, unknown_unload),
        ("extensions", "classification", EXTENSIONS, classification),
    ]  # fmt: skip
    for group, name, source, check in table:
        yield Case(group, name, source, check)
    for datatype in DATATYPES:
        yield Case("datatypes", f"{datatype}, raw", TENSORS, partial(identity, datatype, False))
        if DATATYPES[datatype].field:
            yield Case(
                "datatypes", f"{datatype}, typed", TENSORS, partial(identity, datatype, True)
            )


def server_live(server: GrpcServer) -> None:
    """ServerLive says so."""
    response = server.ask("ServerLive", b"", messages.ServerLiveResponse)
    expect(response.live, "live", True, response.live)


def server_ready(server: GrpcServer) -> None:
    """ServerReady says so, as the models are there."""
    response = server.ask("ServerReady", b"", messages.ServerReadyResponse)
    expect(response.ready, "ready", True, response.ready)


def model_ready(server: GrpcServer) -> None:
    """ModelReady says so of each model."""
    if not server.models:
        raise NotApplicable("no model")
    for name in server.models:
        expect(_ready(server, name, ""), f"{name}: ready", True, False)


def version_ready(server: GrpcServer) -> None:
    """ModelReady says so of each version that metadata list."""
    pairs = [(name, each) for name, model in server.models.items() for each in model.versions]
    if not pairs:
        raise NotApplicable("no versions")
    for name, version in pairs:
        expect(_ready(server, name, version), f"{name}, version {version}: ready", True, False)


def _ready(server: GrpcServer, name: str, version: str) -> bool:
    request = messages.ModelReadyRequest(name=name, version=version)
    return bool(server.ask("ModelReady", request, messages.ModelReadyResponse).ready)


def unknown_model_is_not_ready(server: GrpcServer) -> None:
    """Either false, or an error."""
    _not_ready(server.call("ModelReady", messages.ModelReadyRequest(name="no-such-model")))


def unknown_version_is_not_ready(server: GrpcServer) -> None:
    """Either false, or an error."""
    request = messages.ModelReadyRequest(name=adder(server.models).name, version="4242")
    _not_ready(server.call("ModelReady", request))


def _not_ready(answer: Answer) -> None:
    if answer.code != "OK":
        refused(answer, UNKNOWN_NAME)
        return
    ready = parsed(messages.ModelReadyResponse, answer.payload).ready
    expect(not ready, "ready", False, ready)


def server_metadata(server: GrpcServer) -> None:
    """A name and a version."""
    response = server.ask("ServerMetadata", b"", messages.ServerMetadataResponse)
    expect(bool(response.name), "name", "one", "none")
    expect(bool(response.version), "version", "one", "none")


def models_metadata(server: GrpcServer) -> None:
    """Names, datatypes and shapes are possible ones."""
    if not server.models:
        raise NotApplicable("no model")
    for name in server.models:
        check_model(server, name)


def versions_metadata(server: GrpcServer) -> None:
    """Each version that metadata list can be asked for."""
    pairs = [(name, each) for name, model in server.models.items() for each in model.versions]
    if not pairs:
        raise NotApplicable("no versions")
    for name, version in pairs:
        model = server.metadata(name, version)
        expect(model.name == name, "name", name, model.name)


def batch_sizes_as_stated(server: GrpcServer) -> None:
    """A size of -1 in metadata may be any: 1, 2, 5 and 8 rows."""
    model = adder(server.models)
    for rows in (1, 2, 5, 8):
        server.check(sum_question(model, rows))


def answers_as_stated(server: GrpcServer) -> None:
    """Each model's answer to zeros has the outputs, datatypes and shapes of its metadata."""
    asked = 0
    for model in server.models.values():
        if any(each.datatype == "BYTES" for each in model.inputs):
            continue
        asked += 1
        response = server.infer(raw_request(zero_question(model)))
        arrays = outputs_of(response)
        stated = {each.name: each for each in model.outputs}
        expect(set(arrays) == set(stated), f"{model.name}: outputs", sorted(stated), sorted(arrays))
        for each in response.outputs:
            tensor = stated[each.name]
            field = f"{model.name}: {each.name}"
            expect(each.datatype == tensor.datatype, f"{field}.datatype", tensor.datatype,
                   each.datatype)  # fmt: skip
            fits = len(each.shape) == len(tensor.shape) and all(
                wanted in (-1, got) for wanted, got in zip(tensor.shape, each.shape, strict=True)
            )
            expect(fits, f"{field}.shape", list(tensor.shape), list(each.shape))
    if not asked:
        raise NotApplicable("no model of numbers")


def raw_contents(server: GrpcServer) -> None:
    """A sum and a difference."""
    server.check(sum_question(adder(server.models)))


def typed_contents(server: GrpcServer) -> None:
    """A sum and a difference, in the fields of their type."""
    server.check(sum_question(adder(server.models)), typed=True)


def several_rows(server: GrpcServer) -> None:
    """Three rows."""
    server.check(sum_question(adder(server.models), 3))


def extreme_raw(server: GrpcServer) -> None:
    """The largest and the smallest numbers."""
    server.check(extreme_question(adder(server.models)))


def extreme_typed(server: GrpcServer) -> None:
    """The largest and the smallest numbers, in the field of their type."""
    server.check(extreme_question(adder(server.models)), typed=True)


def inputs_reversed(server: GrpcServer) -> None:
    """Inputs are known by their names, and raw contents by the order of inputs."""

    def change(request: Any) -> None:
        inputs, raw = list(request.inputs)[::-1], list(request.raw_input_contents)[::-1]
        del request.inputs[:], request.raw_input_contents[:]
        request.inputs.extend(inputs)
        request.raw_input_contents.extend(raw)

    server.check(sum_question(adder(server.models)), change)


def _wanting(*names: str) -> Callable[[Any], None]:
    def change(request: Any) -> None:
        for name in names:
            request.outputs.add(name=name)

    return change


def one_output(server: GrpcServer) -> None:
    """Only the output that is asked for."""
    server.check(sum_question(adder(server.models)), _wanting("OUTPUT1"))


def both_outputs(server: GrpcServer) -> None:
    """Both are asked for."""
    server.check(sum_question(adder(server.models)), _wanting("OUTPUT0", "OUTPUT1"))


def outputs_reversed(server: GrpcServer) -> None:
    """Whatever the order of the answer, names and tensors belong together."""
    server.check(sum_question(adder(server.models)), _wanting("OUTPUT1", "OUTPUT0"))


def _with(field: str, value: str) -> Callable[[Any], None]:
    return lambda request: setattr(request, field, value)


def version_by_number(server: GrpcServer) -> None:
    """Each version of metadata answers, and says that it did."""
    model = adder(server.models)
    if not model.versions:
        raise NotApplicable("no versions")
    for version in model.versions:
        response = server.check(sum_question(model), _with("model_version", version))
        expect(response.model_version == version, "model_version", version, response.model_version)


def names_model_and_version(server: GrpcServer) -> None:
    """Without a version in the request, the answer names one that metadata list."""
    model = adder(server.models)
    response = server.check(sum_question(model))
    if model.versions:
        expect(response.model_version in model.versions, "model_version", model.versions,
               response.model_version)  # fmt: skip


def no_rows(server: GrpcServer) -> None:
    """A shape of [0, 16]: an answer without rows, or a refusal."""
    question = sum_question(adder(server.models), 0)
    answer = server.call("ModelInfer", raw_request(question))
    if answer.code != "OK":
        refused(answer, NOT_DONE)
        return
    got = outputs_of(parsed(messages.ModelInferResponse, answer.payload))
    for name, right in question.answer.items():
        expect(name in got and equal(got[name], right), name, "no rows", got.get(name))


def unknown_fields(server: GrpcServer) -> None:
    """Fields of a later version of the protocol do no harm."""
    request = raw_request(sum_question(adder(server.models))).SerializeToString()
    server.infer(parsed(messages.ModelInferRequest, request))
    answer = server.call("ModelInfer", request + b"\xfa\x3f\x05later" + b"\xc0\x3e\x07")
    expect(answer.code == "OK", "status", "OK", f"{answer.code} {answer.text!r}")


def unknown_parameters(server: GrpcServer) -> None:
    """An answer that is right, or a refusal: a server may define parameters."""
    request = raw_request(sum_question(adder(server.models)))
    request.parameters["no_such_parameter"].string_param = "value"
    request.inputs[0].parameters["no_such_parameter"].int64_param = 1
    answer = server.call("ModelInfer", request)
    if answer.code != "OK":
        refused(answer, NOT_DONE)


def id_is_repeated(text: str, server: GrpcServer, may_refuse: bool = False) -> None:
    """The id of the answer is that of the request."""
    request = raw_request(sum_question(adder(server.models)))
    request.id = text
    answer = server.call("ModelInfer", request)
    if may_refuse and answer.code != "OK":
        refused(answer, NOT_DONE)
        return
    expect(answer.code == "OK", "status", "OK", f"{answer.code} {answer.text!r}")
    got = parsed(messages.ModelInferResponse, answer.payload).id
    expect(got == text, "id", repr(text), repr(got))


def no_id(server: GrpcServer) -> None:
    """A request without one is answered."""
    server.infer(raw_request(sum_question(adder(server.models))))


def one_connection(server: GrpcServer) -> None:
    """Each caller gets its own answer."""
    _together(server, lambda index: None)


def many_connections(server: GrpcServer) -> None:
    """Each caller gets its own answer, over a connection of its own."""
    _together(server, lambda index: new_channel(server.address))


def beside_bad_ones(server: GrpcServer) -> None:
    """Requests that are refused harm none that are computed beside them."""
    model = adder(server.models)
    bad = raw_request(sum_question(model))
    bad.raw_input_contents[1] = bad.raw_input_contents[1][:-1]

    def beside() -> None:
        answer = server.call("ModelInfer", bad)
        expect(answer.code != "OK", "status of the bad one", "an error", "OK")

    _together(server, lambda index: None, beside)


def sizes_differ(server: GrpcServer) -> None:
    """What cannot share a batch does not."""
    model = repeater(server.models, "FP32")
    if model.inputs[0].shape != (-1, -1):
        raise NotApplicable(f"{model.name} has a fixed size")

    def question(index: int, turn: int) -> Question:
        shape = (1 + turn % 2, 1 + (index + turn) % 4)
        return identity_question(model, np.full(shape, 100 * index + turn, np.float32))

    _together(server, lambda index: None, question=question)


def cancelled(server: GrpcServer) -> None:
    """A caller that goes away harms nobody; fewer than servers regard as an attack."""
    request = raw_request(sum_question(adder(server.models))).SerializeToString()
    ask: grpc.UnaryUnaryMultiCallable[bytes, bytes]
    ask = server.channel.unary_unary(messages.SERVICE + "ModelInfer")
    futures = [ask.future(request, timeout=server.limit_s) for _ in range(10)]
    for future in futures:
        future.cancel()


def without_time(server: GrpcServer) -> None:
    """A deadline of a tenth of a millisecond: late, refused, or in time; not a fault."""
    request = raw_request(sum_question(adder(server.models))).SerializeToString()
    ask: grpc.UnaryUnaryMultiCallable[bytes, bytes]
    ask = server.channel.unary_unary(messages.SERVICE + "ModelInfer")
    for _ in range(20):
        try:
            ask(request, timeout=1e-4)
        except grpc.RpcError as error:
            name = error.code().name
            right = ("DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "CANCELLED", "UNAVAILABLE")
            expect(name in right, "status", " or ".join(right), name)


def compressed(server: GrpcServer) -> None:
    """Read, or refused as a coding that the server does not know."""
    question = sum_question(adder(server.models))
    request = raw_request(question).SerializeToString()
    ask: grpc.UnaryUnaryMultiCallable[bytes, bytes]
    ask = server.channel.unary_unary(messages.SERVICE + "ModelInfer")
    try:
        data = ask(request, timeout=server.limit_s, compression=grpc.Compression.Gzip)
    except grpc.RpcError as error:
        name = error.code().name
        expect(name == "UNIMPLEMENTED", "status", "OK or UNIMPLEMENTED", name)
        raise NotApplicable("gzip is refused") from error
    got = outputs_of(parsed(messages.ModelInferResponse, data))
    for name, right in question.answer.items():
        check_output(got, name, right)


def pictures(server: GrpcServer) -> None:
    """Two files of PNG: an answer for each, the same whether raw or typed."""
    if server.pictures is None:
        raise NotApplicable("no model of pictures is named")
    model = server.metadata(server.pictures)
    name = model.inputs[0].name
    files = np.array([_png(28, 28), _png(40, 30)], object)
    types = {name: "BYTES", **{each.name: each.datatype for each in model.outputs}}
    question = Question(model.name, {name: files}, types)
    answers = [outputs_of(server.check(question, typed=typed)) for typed in (False, True)]
    for output, array in answers[0].items():
        expect(len(array) == 2, f"{output}.shape", "2 rows", list(array.shape))
        check_output(answers[1], output, array)


def _png(width: int, height: int) -> bytes:
    """A grey picture with a diagonal stroke. Source: PNG, 5 and 11."""
    rows = b"".join(
        b"\0" + bytes(255 if abs(x - y) < 3 else 0 for x in range(width)) for y in range(height)
    )
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _together(
    server: GrpcServer,
    channel_of: Callable[[int], Any],
    beside: Callable[[], None] = lambda: None,
    question: Callable[[int, int], Question] | None = None,
) -> None:
    if question is None:
        model = adder(server.models)

        def question(index: int, turn: int) -> Question:
            return sum_question(model, 1 + (index + turn) % 3, 100_000 * index + 1000 * turn)

    wrong: list[Violation] = []
    gate = threading.Barrier(CALLERS)

    def ask(index: int) -> None:
        channel = channel_of(index)
        try:
            gate.wait()
            for turn in range(_CALLS):
                name = f"caller {index}, call {turn}"
                server.check(question(index, turn), _with("id", name), channel=channel)
                beside()
        except Violation as reason:
            wrong.append(reason)
        finally:
            if channel is not None:
                channel.close()

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise Violation(f"{len(wrong)} of {CALLERS} callers: {wrong[0]}")


def model_config(server: GrpcServer) -> None:
    """The configuration agrees with the metadata."""
    model = adder(server.models)
    request = messages.ModelConfigRequest(name=model.name)
    config = server.ask("ModelConfig", request, messages.ModelConfigResponse).config
    expect(config.name == model.name, "config.name", model.name, config.name)
    for kind, found, tensors in (
        ("input", config.input, model.inputs),
        ("output", config.output, model.outputs),
    ):
        names = {each.name for each in found}
        wanted = {each.name for each in tensors}
        expect(names == wanted, f"config.{kind}", sorted(wanted), sorted(names))
        for each in found:
            shape = next(other.shape for other in tensors if other.name == each.name)
            batched = config.max_batch_size > 0
            expected = shape[1:] if batched else shape
            expect(tuple(each.dims) == expected, f"config.{kind}.{each.name}.dims",
                   list(expected), list(each.dims))  # fmt: skip


def unknown_config(server: GrpcServer) -> None:
    """An error."""
    _refused_or_absent(server, "ModelConfig", messages.ModelConfigRequest(name="no-such-model"))


def statistics_count(server: GrpcServer) -> None:
    """A request of three rows is one success and three inferences."""
    model = adder(server.models)
    before = _statistics(server, model.name)
    server.check(sum_question(model, 3))
    after = _statistics(server, model.name)
    success = after.inference_stats.success.count - before.inference_stats.success.count
    rows = after.inference_count - before.inference_count
    expect(success >= 1, "inference_stats.success.count", "one more or above", f"{success} more")
    expect(rows >= 3, "inference_count", "three more or above", f"{rows} more")
    expect(after.execution_count > before.execution_count, "execution_count",
           f"above {before.execution_count}", after.execution_count)  # fmt: skip
    stats = after.inference_stats
    counts = [each.count for each in (stats.compute_input, stats.compute_infer,
                                      stats.compute_output)]  # fmt: skip
    expect(len(set(counts)) == 1, "counts of compute_input, compute_infer and compute_output",
           "one number", counts)  # fmt: skip


def _statistics(server: GrpcServer, name: str) -> Any:
    request = messages.ModelStatisticsRequest(name=name)
    found = server.ask("ModelStatistics", request, messages.ModelStatisticsResponse).model_stats
    expect(len(found) >= 1, "model_stats", "one or more", len(found))
    expect(found[0].name == name, "model_stats.name", name, found[0].name)
    return found[0]


def unknown_statistics(server: GrpcServer) -> None:
    """An error."""
    request = messages.ModelStatisticsRequest(name="no-such-model")
    _refused_or_absent(server, "ModelStatistics", request)


def repository_index(server: GrpcServer) -> None:
    """Each model is in it, and is ready."""
    request = messages.RepositoryIndexRequest()
    index = server.ask("RepositoryIndex", request, messages.RepositoryIndexResponse).models
    ready = {each.name for each in index if each.state == "READY"}
    expect(ready >= set(server.models), "models that are READY", sorted(server.models),
           sorted(ready))  # fmt: skip


def unknown_load(server: GrpcServer) -> None:
    """An error."""
    request = messages.RepositoryModelLoadRequest(model_name="no-such-model")
    _refused_or_absent(server, "RepositoryModelLoad", request)


def unknown_unload(server: GrpcServer) -> None:
    """An error, or nothing to do."""
    request = messages.RepositoryModelUnloadRequest(model_name="no-such-model")
    answer = server.call("RepositoryModelUnload", request)
    if answer.code == "UNIMPLEMENTED":
        raise NotApplicable("RepositoryModelUnload is not implemented")
    if answer.code != "OK":
        refused(answer, UNKNOWN_NAME)


def _refused_or_absent(server: GrpcServer, method: str, request: Any) -> None:
    answer = server.call(method, request)
    if answer.code == "UNIMPLEMENTED":
        raise NotApplicable(f"{method} is not implemented")
    refused(answer, UNKNOWN_NAME)


def classification(server: GrpcServer) -> None:
    """The three largest elements as VALUE:INDEX, largest first; where the server knows of it."""
    model = adder(server.models)
    request = raw_request(sum_question(model))
    request.outputs.add(name="OUTPUT0").parameters["classification"].int64_param = 3
    answer = server.call("ModelInfer", request)
    if answer.code != "OK":
        refused(answer, NOT_DONE)
        raise NotApplicable(f"classification is refused: {answer.text}")
    response = parsed(messages.ModelInferResponse, answer.payload)
    if response.outputs[0].datatype != "BYTES":
        raise NotApplicable("classification is ignored")
    got = outputs_of(response)["OUTPUT0"].ravel().tolist()
    total = sum_question(model).answer["OUTPUT0"][0]
    best = sorted(range(16), key=lambda index: (-total[index], index))[:3]
    expect(len(got) == 3, "classes", 3, got)
    for text, index in zip(got, best, strict=True):
        parts = text.split(b":")
        right = len(parts) >= 2 and float(parts[0]) == total[index] and int(parts[1]) == index
        expect(right, "class", f"{total[index]}:{index}", text)


def identity(datatype: str, typed: bool, server: GrpcServer) -> None:
    """A tensor with the extreme values of a datatype comes back bit for bit."""
    model = repeater(server.models, datatype)
    server.check(identity_question(model), typed=typed)
    expect(some_shape(model.inputs[0]) != (), "shape", "one axis or more", "none")
