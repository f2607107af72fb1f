"""What is wrong over gRPC: each request is refused with a status that says whose fault it is."""

import socket
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from tests.conformance import messages
from tests.conformance.grpc_cases import GRPC, INFERENCE, METADATA, TENSORS, Check
from tests.conformance.grpc_server import (
    BAD,
    NOT_A_MESSAGE,
    NOT_DONE,
    UNKNOWN_NAME,
    GrpcServer,
    outputs_of,
    parsed,
    raw_request,
    refused,
    typed_request,
)
from tests.conformance.models import adder, identity_question, repeater, sum_question
from tests.conformance.suite import Case, NotApplicable, Violation, changed, expect

#: A few bytes that claim to be a JPEG.
_NO_PICTURE = b"\xff\xd8\xff\xe0 not a picture"
_LARGEST = (1 << 63) - 1

Change = Callable[[Any], bytes | None]


def _set(path: str, value: Any) -> Change:
    """Sets a field of the request, or of its first input ("input.NAME") or output."""

    def change(request: Any) -> None:
        owner, _, name = path.rpartition(".")
        message = {"": request, "input": request.inputs[0]}[owner]
        if name == "shape":
            del message.shape[:]
            message.shape.extend(value)
        else:
            setattr(message, name, value)

    return change


def _shapes(*shape: int) -> Change:
    """Gives both inputs a shape; their bytes stay."""

    def change(request: Any) -> None:
        for each in request.inputs:
            del each.shape[:]
            each.shape.extend(shape)

    return change


def _raw(edit: Callable[[bytes], bytes]) -> Change:
    """Changes the second tensor's bytes."""

    def change(request: Any) -> None:
        request.raw_input_contents[1] = edit(request.raw_input_contents[1])

    return change


def _raws(edit: Callable[[list[bytes]], list[bytes]]) -> Change:
    """Changes the list of bytes."""

    def change(request: Any) -> None:
        edited = edit(list(request.raw_input_contents))
        del request.raw_input_contents[:]
        request.raw_input_contents.extend(edited)

    return change


def _do(*edits: Callable[[Any], object]) -> Change:
    """Several changes, one after another."""

    def change(request: Any) -> None:
        for edit in edits:
            edit(request)

    return change


def _contents(field: str, values: Iterable[Any], clear: bool = True) -> Change:
    """Fills a field of the first input's contents."""

    def change(request: Any) -> None:
        if clear:
            request.inputs[0].contents.Clear()
        getattr(request.inputs[0].contents, field).extend(values)

    return change


def _bytes_of(name: str) -> Callable[[Any], bytes]:
    """Makes a text of the request invalid UTF-8, which no library would send."""
    marks = {
        "model_name": b"mark", "id": b"mark", "input.name": b"mark", "input.datatype": b"mark",
        "output.name": b"mark",
    }  # fmt: skip

    def change(request: Any) -> bytes:
        mark = marks[name].decode()
        if name.startswith("output"):
            request.outputs.add(name=mark)
        else:
            _set(name, mark)(request)
        data: bytes = request.SerializeToString()
        assert data.count(b"mark") == 1
        return data.replace(b"mark", b"\xff\xfe\xc0\x80")

    return change


def _parameter(name: str, kind: str, value: Any, of: str = "request") -> Change:
    """Sets a parameter of the request, or of a requested output, or of the first input."""

    def change(request: Any) -> None:
        if of == "output":
            owner = request.outputs.add(name="OUTPUT0")
        else:
            owner = request if of == "request" else request.inputs[0]
        setattr(owner.parameters[name], kind, value)

    return change


#: Name, source, what changes a good request, and the codes that are right.
_RAW: list[tuple[str, str, str, Change, Iterable[str]]] = [
    ("datatype", "another of the same size", TENSORS, _set("input.datatype", "UINT32"), BAD),
    ("datatype", "another of a larger size", TENSORS, _set("input.datatype", "INT64"), BAD),
    ("datatype", "a float", TENSORS, _set("input.datatype", "FP32"), BAD),
    ("datatype", "BYTES", TENSORS, _set("input.datatype", "BYTES"), BAD),
    ("datatype", "one that does not exist", TENSORS, _set("input.datatype", "INT33"), BAD),
    ("datatype", "none", TENSORS, _set("input.datatype", ""), BAD),
    ("datatype", "lower case", TENSORS, _set("input.datatype", "int32"), BAD),
    ("datatype", "a megabyte long", TENSORS, _set("input.datatype", "X" * (1 << 20)), NOT_DONE),
    ("shape", "none", INFERENCE, _set("input.shape", []), BAD),
    ("shape", "one axis too few", INFERENCE, _shapes(16), BAD),
    ("shape", "one axis too many", INFERENCE, _shapes(1, 16, 1), BAD),
    ("shape", "a thousand axes", INFERENCE, _shapes(*[1] * 998, 1, 16), BAD),
    ("shape", "a fixed size one less", INFERENCE,
     _do(_shapes(1, 15), _raws(lambda all: [each[:60] for each in all])), BAD),
    ("shape", "a fixed size one more", INFERENCE,
     _do(_shapes(1, 17), _raws(lambda all: [each + bytes(4) for each in all])), BAD),
    ("shape", "axes exchanged", INFERENCE, _shapes(16, 1), BAD),
    ("shape", "more rows than bytes", INFERENCE, _shapes(2, 16), BAD),
    ("shape", "fewer rows than bytes", INFERENCE,
     _raws(lambda all: [each * 2 for each in all]), BAD),
    ("shape", "a size of -1", INFERENCE, _shapes(-1, 16), BAD),
    ("shape", "two negative sizes, whose product fits", INFERENCE, _shapes(-1, -16), BAD),
    ("shape", "a fixed size of 0", INFERENCE, _do(_shapes(1, 0), _raws(lambda all: [b"", b""])),
     BAD),
    ("shape", "the smallest int64", INFERENCE, _shapes(-_LARGEST - 1, 16), BAD),
    ("shape", "the largest int64", INFERENCE, _shapes(_LARGEST, 16), NOT_DONE),
    ("shape", "2^62 rows", INFERENCE, _shapes(1 << 62, 16), NOT_DONE),
    ("shape", "elements overflow 64 bits to the right number", INFERENCE,
     _shapes((1 << 60) + 1, 16), NOT_DONE),
    ("shape", "bytes overflow 64 bits to the right number", INFERENCE,
     _shapes((1 << 58) + 1, 16), NOT_DONE),
    ("shape", "elements overflow 32 bits to the right number", INFERENCE,
     _shapes((1 << 28) + 1, 16), NOT_DONE),
    ("shape", "inputs of different batch sizes", INFERENCE,
     _do(_set("input.shape", [2, 16]), _raws(lambda all: [all[0] * 2, all[1]])), BAD),
    ("raw contents", "one byte less", INFERENCE, _raw(lambda data: data[:-1]), BAD),
    ("raw contents", "one byte more", INFERENCE, _raw(lambda data: data + b"\0"), BAD),
    ("raw contents", "one element less", INFERENCE, _raw(lambda data: data[:-4]), BAD),
    ("raw contents", "one element more", INFERENCE, _raw(lambda data: data + bytes(4)), BAD),
    ("raw contents", "empty", INFERENCE, _raw(lambda data: b""), BAD),
    ("raw contents", "5 MiB instead of 64 bytes", INFERENCE,
     _raw(lambda data: bytes(5 << 20)), NOT_DONE),
    ("raw contents", "one too few", INFERENCE, _raws(lambda all: all[:1]), BAD),
    ("raw contents", "one too many", INFERENCE, _raws(lambda all: [*all, all[0]]), BAD),
    ("raw contents", "one too many, empty", INFERENCE, _raws(lambda all: [*all, b""]), BAD),
    ("raw contents", "none, nor typed ones", INFERENCE, _raws(lambda all: []), BAD),
    ("raw contents", "all in one", INFERENCE, _raws(lambda all: [b"".join(all)]), BAD),
    ("raw contents", "beside typed ones", INFERENCE, _contents("int_contents", range(16)), BAD),
    ("raw contents", "one raw, one typed", INFERENCE,
     _do(_contents("int_contents", range(16)), _raws(lambda all: all[1:])), BAD),
    ("raw contents", "beside typed ones in a wrong field", INFERENCE,
     _contents("fp32_contents", [0.5]), BAD),
    ("names", "unknown input", INFERENCE, _set("input.name", "INPUT2"), UNKNOWN_NAME),
    ("names", "input in lower case", INFERENCE, _set("input.name", "input0"), UNKNOWN_NAME),
    ("names", "input without a name", INFERENCE, _set("input.name", ""), UNKNOWN_NAME),
    ("names", "the same input twice", INFERENCE, _set("input.name", "INPUT1"), UNKNOWN_NAME),
    ("names", "an output's name as input", INFERENCE, _set("input.name", "OUTPUT0"), UNKNOWN_NAME),
    ("names", "an input missing", INFERENCE,
     _do(lambda request: request.inputs.pop(), _raws(lambda all: all[:1])), UNKNOWN_NAME),
    ("names", "no inputs", INFERENCE,
     _do(lambda request: request.ClearField("inputs"), _raws(lambda all: [])), UNKNOWN_NAME),
    ("names", "an input too many", INFERENCE,
     _do(lambda request: request.inputs.add(name="INPUT2", datatype="INT32", shape=[1, 16]),
         _raws(lambda all: [*all, all[0]])), UNKNOWN_NAME),
    ("names", "an input of 1 MiB of name", INFERENCE, _set("input.name", "n" * (1 << 20)),
     UNKNOWN_NAME | NOT_DONE),
    ("names", "unknown output", INFERENCE,
     lambda request: request.outputs.add(name="OUTPUT2") and None, UNKNOWN_NAME),
    ("names", "known and unknown output", INFERENCE,
     _do(lambda request: request.outputs.add(name="OUTPUT0"),
         lambda request: request.outputs.add(name="OUTPUT2")), UNKNOWN_NAME),
    ("names", "output without a name", INFERENCE,
     lambda request: request.outputs.add(name="") and None, UNKNOWN_NAME),
    ("names", "an input's name as output", INFERENCE,
     lambda request: request.outputs.add(name="INPUT0") and None, UNKNOWN_NAME),
    ("names", "unknown model", INFERENCE, _set("model_name", "no-such-model"), UNKNOWN_NAME),
    ("names", "no model", INFERENCE, _set("model_name", ""), UNKNOWN_NAME),
    ("names", "model in another folder", INFERENCE, _set("model_name", "../simple"), UNKNOWN_NAME),
    ("names", "model with a version in its name", INFERENCE, _set("model_name", "simple/1"),
     UNKNOWN_NAME),
    ("names", "model with a NUL", INFERENCE, _set("model_name", "simple\0"), UNKNOWN_NAME),
    ("names", "model with a line break", INFERENCE, _set("model_name", "simple\r\nx: y"),
     UNKNOWN_NAME),
    ("names", "model of many scripts", INFERENCE,
     _set("model_name", "\u6a21\u578b \U0001f600 \u202e"), UNKNOWN_NAME),
    ("names", "model of 100 kB", INFERENCE, _set("model_name", "m" * 100_000),
     UNKNOWN_NAME | NOT_DONE),
    ("versions", "one that does not exist", INFERENCE, _set("model_version", "4242"), UNKNOWN_NAME),
    ("versions", "0", INFERENCE, _set("model_version", "0"), UNKNOWN_NAME),
    ("versions", "negative", INFERENCE, _set("model_version", "-1"), UNKNOWN_NAME),
    ("versions", "a fraction", INFERENCE, _set("model_version", "1.5"), UNKNOWN_NAME),
    ("versions", "more digits than 64 bits hold", INFERENCE, _set("model_version", "9" * 40),
     UNKNOWN_NAME),
    ("versions", "5,000 digits", INFERENCE, _set("model_version", "1" * 5000),
     UNKNOWN_NAME | NOT_DONE),
    ("versions", "digits of another script", INFERENCE, _set("model_version", "\u0661"),
     UNKNOWN_NAME),
    ("versions", "a word", INFERENCE, _set("model_version", "no-such-label"), UNKNOWN_NAME),
    ("messages", "a model name that is not UTF-8", GRPC, _bytes_of("model_name"),
     NOT_A_MESSAGE | UNKNOWN_NAME),
    ("messages", "an input name that is not UTF-8", GRPC, _bytes_of("input.name"),
     NOT_A_MESSAGE | UNKNOWN_NAME),
    ("messages", "an output name that is not UTF-8", GRPC, _bytes_of("output.name"),
     NOT_A_MESSAGE | UNKNOWN_NAME),
    ("messages", "a datatype that is not UTF-8", GRPC, _bytes_of("input.datatype"), NOT_A_MESSAGE),
    ("messages", "an id that is not UTF-8", GRPC, _bytes_of("id"), NOT_A_MESSAGE),
    ("messages", "half of one", GRPC,
     lambda request: request.SerializeToString()[:-20], NOT_A_MESSAGE),
    ("messages", "a good one and garbage behind it", GRPC,
     lambda request: request.SerializeToString() + b"\xff" * 32, NOT_A_MESSAGE),
]  # fmt: skip

_TYPED: list[tuple[str, str, str, Change, Iterable[str]]] = [
    ("typed contents", "one element less", TENSORS, _contents("int_contents", range(15)), BAD),
    ("typed contents", "one element more", TENSORS, _contents("int_contents", range(17)), BAD),
    ("typed contents", "none", TENSORS, _contents("int_contents", ()), BAD),
    ("typed contents", "int64_contents of INT32", TENSORS,
     _contents("int64_contents", range(16)), BAD),
    ("typed contents", "uint_contents of INT32", TENSORS, _contents("uint_contents", range(16)),
     BAD),
    ("typed contents", "fp32_contents of INT32", TENSORS, _contents("fp32_contents", [0.5] * 16),
     BAD),
    ("typed contents", "bool_contents of INT32", TENSORS, _contents("bool_contents", [True] * 16),
     BAD),
    ("typed contents", "bytes_contents of INT32", TENSORS, _contents("bytes_contents", [bytes(64)]),
     BAD),
    ("typed contents", "the right field and another", TENSORS,
     _contents("int64_contents", range(16), clear=False), BAD),
    ("typed contents", "more rows than elements", TENSORS, _shapes(2, 16), BAD),
    ("typed contents", "elements overflow 64 bits to the right number", TENSORS,
     _shapes((1 << 60) + 1, 16), NOT_DONE),
    ("typed contents", "another datatype of the same field", TENSORS,
     _set("input.datatype", "INT16"), BAD),
    ("typed contents", "another datatype", TENSORS, _set("input.datatype", "FP32"), BAD),
    ("typed contents", "beside one raw content", TENSORS,
     lambda request: request.raw_input_contents.append(bytes(64)), BAD),
    ("typed contents", "beside an empty raw content", TENSORS,
     lambda request: request.raw_input_contents.append(b""), BAD),
]  # fmt: skip

#: Parameters, which a server may know, refuse or ignore: what counts is that nothing breaks.
_PARAMETERS: list[tuple[str, Change]] = [
    ("classification of 0", _parameter("classification", "int64_param", 0, "output")),
    ("classification of -1", _parameter("classification", "int64_param", -1, "output")),
    ("classification of 2^62", _parameter("classification", "int64_param", 1 << 62, "output")),
    ("classification as text", _parameter("classification", "string_param", "1", "output")),
    ("shared memory that is not registered",
     _parameter("shared_memory_region", "string_param", "none", "input")),
    ("a priority below 0", _parameter("priority", "int64_param", -1)),
    ("a priority of 2^63", _parameter("priority", "uint64_param", 1 << 63)),
    ("a timeout below 0", _parameter("timeout", "int64_param", -1)),
    ("a timeout as text", _parameter("timeout", "string_param", "soon")),
    ("a sequence without an end", _parameter("sequence_id", "int64_param", 7)),
    ("a parameter without a value", lambda request: request.parameters["x"].Clear()),
    ("a parameter without a name", _parameter("", "bool_param", True)),
    ("a number that is not one", _parameter("x", "double_param", float("nan"))),
]  # fmt: skip


def cases() -> Iterator[Case[GrpcServer]]:
    """All of them."""
    for make, malformed in ((raw_request, _RAW), (typed_request, _TYPED)):
        for group, name, source, change, codes in malformed:
            yield Case(group, name, source, partial(_refuses, make, change, codes), malformed=True)
    for name, change in _PARAMETERS:
        yield Case("parameters", name, "inference_grpc.md#parameters",
                   partial(_answers, change), malformed=True)  # fmt: skip
    table: list[tuple[str, str, str, Check]] = [
        ("names", "the same output twice", INFERENCE, same_output_twice),
        ("names", "metadata of an unknown model", METADATA, unknown_metadata),
        ("names", "metadata of an unknown version", METADATA, unknown_version_metadata),
        ("names", "metadata without a name", METADATA, nameless_metadata),
        ("messages", "none", GRPC, partial(bytes_refused, b"", UNKNOWN_NAME)),
        ("messages", "bytes that are none", GRPC,
         partial(bytes_refused, b"\xff\x00garbage" * 20, NOT_A_MESSAGE)),
        ("messages", "a length beyond the end", GRPC,
         partial(bytes_refused, b"\x0a\xff\xff\xff\xff\x0fsimple", NOT_A_MESSAGE)),
        ("messages", "a number where a text belongs", GRPC,
         partial(bytes_refused, b"\x08\x01", NOT_A_MESSAGE | UNKNOWN_NAME)),
        ("messages", "field number 0", GRPC, partial(bytes_refused, b"\x02\x00", NOT_A_MESSAGE)),
        ("messages", "100,000 open groups", GRPC,
         partial(bytes_refused, b"\xfb\x3f" * 100_000, NOT_A_MESSAGE)),
        ("messages", "garbage to ModelMetadata", GRPC, garbage_metadata),
        ("messages", "300 random changes, raw", GRPC, partial(random_changes, raw_request)),
        ("messages", "300 random changes, typed", GRPC, partial(random_changes, typed_request)),
        ("methods", "unknown method", GRPC, partial(unknown_method, "NoSuchMethod")),
        ("methods", "unknown service", GRPC,
         partial(unknown_method, "/inference.NoSuchService/ModelInfer")),
        ("methods", "another case of letters", GRPC, partial(unknown_method, "modelinfer")),
        ("methods", "HTTP/1.1 instead of HTTP/2", GRPC, http_one),
        ("methods", "bytes that are not HTTP", GRPC, not_http),
        ("datatypes, wrong", "UINT8 of 256, typed", TENSORS,
         partial(out_of_range, "UINT8", [0, 256])),
        ("datatypes, wrong", "INT8 of -129, typed", TENSORS,
         partial(out_of_range, "INT8", [0, -129])),
        ("datatypes, wrong", "INT16 of 32768, typed", TENSORS,
         partial(out_of_range, "INT16", [0, 32768])),
        ("datatypes, wrong", "FP16, typed", TENSORS, half_typed),
        ("datatypes, wrong", "BYTES: a length beyond the end", TENSORS,
         partial(damaged_bytes, b"\xff\xff\xff\x7fab")),
        ("datatypes, wrong", "BYTES: a length of 2^32 - 1", TENSORS,
         partial(damaged_bytes, b"\xff\xff\xff\xffab")),
        ("datatypes, wrong", "BYTES: half a length", TENSORS, partial(damaged_bytes, b"\x01\x00")),
        ("datatypes, wrong", "BYTES: an element too many", TENSORS,
         partial(damaged_bytes, b"\x01\0\0\0a" * 4)),
        ("datatypes, wrong", "BYTES: an element too few", TENSORS,
         partial(damaged_bytes, b"\x01\0\0\0a" * 2)),
        ("datatypes, wrong", "BYTES: bytes behind the last element", TENSORS,
         partial(damaged_bytes, b"\x01\0\0\0a" * 3 + b"\0")),
        ("datatypes, wrong", "BYTES: empty", TENSORS, partial(damaged_bytes, b"")),
        ("pictures", "bytes that are not a picture", "JPEG and PNG as BYTES", no_picture),
        ("pictures", "a damaged length", "JPEG and PNG as BYTES", damaged_picture),
        ("pictures", "an empty one", "JPEG and PNG as BYTES", empty_picture),
    ]  # fmt: skip
    for group, name, source, check in table:
        yield Case(group, name, source, check, malformed=True)


def _refuses(
    make: Callable[[Any], Any], change: Change, codes: Iterable[str], server: GrpcServer
) -> None:
    request = make(sum_question(adder(server.models)))
    sent = change(request)
    refused(server.call("ModelInfer", sent if isinstance(sent, bytes) else request), codes)


def _answers(change: Change, server: GrpcServer) -> None:
    """Either an answer, or a refusal."""
    request = raw_request(sum_question(adder(server.models)))
    change(request)
    answer = server.call("ModelInfer", request)
    if answer.code != "OK":
        refused(answer, NOT_DONE | UNKNOWN_NAME)
    else:
        outputs_of(parsed(messages.ModelInferResponse, answer.payload))


def same_output_twice(server: GrpcServer) -> None:
    """Once, or a refusal; not two tensors of one name."""
    request = raw_request(sum_question(adder(server.models)))
    request.outputs.add(name="OUTPUT0")
    request.outputs.add(name="OUTPUT0")
    answer = server.call("ModelInfer", request)
    if answer.code != "OK":
        refused(answer, UNKNOWN_NAME)
    else:
        outputs_of(parsed(messages.ModelInferResponse, answer.payload))


def unknown_metadata(server: GrpcServer) -> None:
    """An error."""
    request = messages.ModelMetadataRequest(name="no-such-model")
    refused(server.call("ModelMetadata", request), UNKNOWN_NAME)


def unknown_version_metadata(server: GrpcServer) -> None:
    """An error."""
    request = messages.ModelMetadataRequest(name=adder(server.models).name, version="4242")
    refused(server.call("ModelMetadata", request), UNKNOWN_NAME)


def nameless_metadata(server: GrpcServer) -> None:
    """An error."""
    refused(server.call("ModelMetadata", b""), UNKNOWN_NAME)


def bytes_refused(data: bytes, codes: Iterable[str], server: GrpcServer) -> None:
    """Bytes that are not a request, or an empty one."""
    refused(server.call("ModelInfer", data), codes)


def garbage_metadata(server: GrpcServer) -> None:
    """Bytes that are not a request."""
    refused(server.call("ModelMetadata", b"\xff" * 64), NOT_A_MESSAGE)


def random_changes(make: Callable[[Any], Any], server: GrpcServer) -> None:
    """Whatever comes, it is answered or refused; the changes are the same in every run."""
    good = make(sum_question(adder(server.models), 2)).SerializeToString()
    for seed in range(300):
        answer = server.call("ModelInfer", changed(good, seed))
        if answer.code != "OK":
            refused(answer, NOT_A_MESSAGE | NOT_DONE | UNKNOWN_NAME)
        else:
            outputs_of(parsed(messages.ModelInferResponse, answer.payload))


def unknown_method(path: str, server: GrpcServer) -> None:
    """UNIMPLEMENTED."""
    refused(server.call(path, b""), {"UNIMPLEMENTED"})


def http_one(server: GrpcServer) -> None:
    """The connection ends, or is answered; others are not harmed."""
    _ends(server, b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")


def not_http(server: GrpcServer) -> None:
    """The connection ends; others are not harmed."""
    _ends(server, b"\x16\x03\x01\x02\x00\x01\x00" + b"\xff" * 512)


def _ends(server: GrpcServer, data: bytes) -> None:
    host, _, port = server.address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), server.limit_s) as connection:
            connection.sendall(data)
            while connection.recv(65536):
                pass
    except TimeoutError as error:
        raise Violation(
            f"connection: expected its end within {server.limit_s:g} s, got none"
        ) from error
    except ConnectionError:
        return  # Ended by a reset.


def out_of_range(datatype: str, values: list[int], server: GrpcServer) -> None:
    """A number that the datatype does not hold."""
    question = identity_question(repeater(server.models, datatype))
    request = typed_request(question)
    contents = request.inputs[0].contents
    field = contents.ListFields()[0][0].name
    getattr(contents, field)[: len(values)] = values
    refused(server.call("ModelInfer", request), BAD)


def half_typed(server: GrpcServer) -> None:
    """FP16 has no field of its own, and fp32_contents are not it."""
    request = raw_request(identity_question(repeater(server.models, "FP16")))
    del request.raw_input_contents[:]
    count = 1
    for size in request.inputs[0].shape:
        count *= size
    request.inputs[0].contents.fp32_contents.extend([0.5] * count)
    refused(server.call("ModelInfer", request), NOT_DONE)


def damaged_bytes(data: bytes, server: GrpcServer) -> None:
    """Three elements of BYTES, whose lengths are not right."""
    request = raw_request(identity_question(repeater(server.models, "BYTES")))
    del request.inputs[0].shape[:]
    request.inputs[0].shape.append(3)
    request.raw_input_contents[0] = data
    refused(server.call("ModelInfer", request), BAD)


def _picture(server: GrpcServer, raw: bytes) -> None:
    if server.pictures is None:
        raise NotApplicable("no model of pictures is named")
    model = server.metadata(server.pictures)
    request = messages.ModelInferRequest(model_name=model.name)
    request.inputs.add(name=model.inputs[0].name, datatype="BYTES", shape=[1])
    request.raw_input_contents.append(raw)
    answer = server.call("ModelInfer", request)
    refused(answer, BAD)
    expect(len(answer.text) < 2000, "text", "at most 2,000 characters", len(answer.text))


def no_picture(server: GrpcServer) -> None:
    """A file that is not a picture."""
    _picture(server, len(_NO_PICTURE).to_bytes(4, "little") + _NO_PICTURE)


def damaged_picture(server: GrpcServer) -> None:
    """The length of a file is beyond the end."""
    _picture(server, (1 << 30).to_bytes(4, "little") + _NO_PICTURE)


def empty_picture(server: GrpcServer) -> None:
    """A file of no bytes."""
    _picture(server, bytes(4))
