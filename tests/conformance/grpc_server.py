"""A server under test, over gRPC."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from tests.conformance import messages
from tests.conformance.models import Model, Question, Tensor, adder, check_metadata, sum_question
from tests.conformance.suite import NotApplicable, Violation, expect, shortened
from tests.conformance.tensors import DATATYPES, Array, equal, from_raw, to_raw

#: A request is the caller's fault in itself.
BAD = frozenset({"INVALID_ARGUMENT", "OUT_OF_RANGE", "FAILED_PRECONDITION"})
#: What a request names does not exist.
UNKNOWN_NAME = BAD | {"NOT_FOUND", "UNAVAILABLE", "PERMISSION_DENIED"}
#: More than the server accepts, or than it can do.
NOT_DONE = BAD | {"RESOURCE_EXHAUSTED", "UNIMPLEMENTED"}
#: Bytes that are not a message: gRPC's own code for it is INTERNAL, which libraries answer.
#: Source: https://github.com/grpc/grpc/blob/master/doc/statuscodes.md
NOT_A_MESSAGE = BAD | {"INTERNAL"}

_LARGEST_ANSWER = 64 << 20


@dataclass(frozen=True)
class Answer:
    """What a server has answered.

    Args:
        code: name of the status.
        text: of the status.
        payload: the message's bytes; empty unless the status is OK.
    """

    code: str
    text: str
    payload: bytes


class GrpcServer:
    """One connection to a server.

    Args:
        address: HOST:PORT.
        limit_s: for each call.
        names: of the models to look at.
        pictures: a model that accepts encoded images as BYTES, if known.
    """

    def __init__(
        self, address: str, limit_s: float, names: Sequence[str], pictures: str | None = None
    ) -> None:
        self.address = address
        self.limit_s = limit_s
        self._names = names
        self.pictures = pictures
        self.channel = new_channel(address)

    def close(self) -> None:
        """Ends the connection."""
        self.channel.close()

    def call(self, method: str, request: Any, channel: grpc.Channel | None = None) -> Answer:
        """Asks once.

        Args:
            method: name of a method, or a path.
            request: a message, or any bytes.
            channel: another connection.

        Raises:
            Violation: if there is no answer within the limit.
        """
        path = method if method.startswith("/") else messages.SERVICE + method
        payload = request if isinstance(request, bytes) else request.SerializeToString()
        try:
            answer = _asked(channel or self.channel, path)(payload, timeout=self.limit_s)
        except grpc.RpcError as error:
            code = error.code().name
            if code == "DEADLINE_EXCEEDED":
                raise Violation(
                    f"{method}: expected an answer within {self.limit_s:g} s, got none"
                ) from error
            return Answer(code, error.details() or "", b"")
        return Answer("OK", "", answer)

    def ask(self, method: str, request: Any, response: Any) -> Any:
        """Asks once, and returns the message of an answer that has to be OK.

        Raises:
            NotApplicable: if the server does not have the method.
            Violation: if the answer is another one.
        """
        answer = self.call(method, request)
        if answer.code == "UNIMPLEMENTED":
            raise NotApplicable(f"{method} is not implemented")
        expect(answer.code == "OK", f"{method}: status", "OK", f"{answer.code} {answer.text!r}")
        return parsed(response, answer.payload)

    def infer(self, request: Any, channel: grpc.Channel | None = None) -> Any:
        """Asks a model, and returns the message of an answer that has to be OK."""
        answer = self.call("ModelInfer", request, channel)
        expect(answer.code == "OK", "status", "OK", f"{answer.code} {answer.text!r}")
        return parsed(messages.ModelInferResponse, answer.payload)

    def metadata(self, name: str, version: str = "") -> Model:
        """What the server says of a model; raises Violation unless the answer is OK."""
        request = messages.ModelMetadataRequest(name=name, version=version)
        return _model(self.ask("ModelMetadata", request, messages.ModelMetadataResponse))

    @cached_property
    def models(self) -> Mapping[str, Model]:
        """The models to look at that the server has, by name."""
        found = {}
        for name in self._names:
            answer = self.call("ModelMetadata", messages.ModelMetadataRequest(name=name))
            if answer.code == "OK":
                response = parsed(messages.ModelMetadataResponse, answer.payload)
                found[name] = _model(response)
        return found

    def still_right(self) -> None:
        """Raises Violation unless a good question is answered rightly on this connection."""
        try:
            model = adder(self.models)
        except NotApplicable:
            answer = self.call("ServerLive", b"")
            expect(answer.code == "OK", "afterwards, ServerLive", "OK", answer.code)
            return
        try:
            self.check(sum_question(model))
        except Violation as reason:
            raise Violation(f"a good request afterwards: {reason}") from reason

    def check(
        self,
        question: Question,
        change: Callable[[Any], None] = lambda request: None,
        typed: bool = False,
        channel: grpc.Channel | None = None,
    ) -> Any:
        """Asks a question, and compares the answer with the right one.

        Args:
            question: what to ask.
            change: changes the request before it is sent.
            typed: whether tensors go in the fields of their types.
            channel: another connection.

        Returns:
            The response.

        Raises:
            Violation: if the answer is not right.
        """
        request = typed_request(question) if typed else raw_request(question)
        change(request)
        response = self.infer(request, channel)
        expect(response.model_name == question.model, "model_name", question.model,
               response.model_name)  # fmt: skip
        expect(response.id == request.id, "id", shortened(request.id), response.id)
        wanted = [each.name for each in request.outputs] or list(question.answer)
        got = outputs_of(response)
        for name, right in question.answer.items():
            if name in wanted:
                check_output(got, name, right)
        expect(not question.answer or set(got) == set(wanted), "outputs", sorted(wanted), list(got))
        for each in response.outputs:
            expect(each.datatype == question.datatypes.get(each.name), f"{each.name}.datatype",
                   question.datatypes.get(each.name), each.datatype)  # fmt: skip
        return response


def _asked(channel: grpc.Channel, path: str) -> "grpc.UnaryUnaryMultiCallable[bytes, bytes]":
    return channel.unary_unary(path)


def parsed(kind: Any, data: bytes) -> Any:
    """The message that bytes are; raises Violation unless they are one."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise Violation(
            f"answer: expected a {kind.DESCRIPTOR.name}, got other bytes: {data[:40]!r}"
        ) from error


def new_channel(address: str) -> grpc.Channel:
    """A connection that no other channel of this process shares, and that does not ask again."""
    return grpc.insecure_channel(
        address,
        options=[
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_retries", 0),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", _LARGEST_ANSWER),
        ],
    )


def check_output(got: Mapping[str, Array], name: str, right: Array) -> None:
    """Raises Violation unless an output is there and is the right one, bit for bit."""
    expect(name in got, "outputs", f"{name} among them", list(got))
    expect(got[name].shape == right.shape, f"{name}.shape", list(right.shape),
           list(got[name].shape))  # fmt: skip
    expect(equal(got[name], right), name, shortened(right.tolist()), got[name].tolist())


def raw_request(question: Question) -> Any:
    """A request whose tensors are in raw_input_contents."""
    request = _request(question)
    request.raw_input_contents.extend(map(to_raw, question.inputs.values()))
    return request


def typed_request(question: Question) -> Any:
    """A request whose tensors are in the fields of their types.

    Raises:
        NotApplicable: for FP16, which has no such field.
    """
    request = _request(question)
    for tensor, array in zip(request.inputs, question.inputs.values(), strict=True):
        field = DATATYPES[tensor.datatype].field
        if not field:
            raise NotApplicable(f"{tensor.datatype} has no typed contents")
        getattr(tensor.contents, field).extend(array.ravel().tolist())
    return request


def _request(question: Question) -> Any:
    request = messages.ModelInferRequest(model_name=question.model)
    for name, array in question.inputs.items():
        request.inputs.add(name=name, datatype=question.datatypes[name], shape=array.shape)
    return request


def outputs_of(response: Any) -> dict[str, Array]:
    """The tensors of a response, by name; raises Violation if there is anything wrong with them."""
    raw = list(response.raw_output_contents)
    expect(len(raw) in (0, len(response.outputs)), "raw_output_contents",
           f"none or {len(response.outputs)}", len(raw))  # fmt: skip
    arrays = {}
    for index, tensor in enumerate(response.outputs):
        name, shape = tensor.name, tuple(tensor.shape)
        expect(name not in arrays, "outputs", "names that differ", f"{name} twice")
        if raw:
            expect(not tensor.contents.ByteSize(), f"{name}.contents",
                   "none beside raw_output_contents", str(tensor.contents))  # fmt: skip
            arrays[name] = from_raw(raw[index], tensor.datatype, shape, name)
        else:
            arrays[name] = _typed(tensor, shape)
    return arrays


def _typed(tensor: Any, shape: Sequence[int]) -> Array:
    datatype = DATATYPES.get(tensor.datatype)
    if datatype is None or not datatype.field:
        raise Violation(f"{tensor.name}: expected raw contents of {tensor.datatype}, got none")
    values = list(getattr(tensor.contents, datatype.field))
    count = int(np.prod(shape, dtype=np.int64))
    expect(len(values) == count, f"{tensor.name}.contents.{datatype.field}", f"{count} elements",
           len(values))  # fmt: skip
    array = np.empty(count, datatype.numpy)
    array[:] = values
    return array.reshape(shape)


def _model(response: Any) -> Model:
    def tensors(found: Iterable[Any]) -> tuple[Tensor, ...]:
        return tuple(Tensor(each.name, each.datatype, tuple(each.shape)) for each in found)

    return Model(
        response.name, tuple(response.versions), tensors(response.inputs), tensors(response.outputs)
    )


def check_model(server: GrpcServer, name: str) -> Model:
    """A model's metadata, which have to be possible."""
    model = server.metadata(name)
    check_metadata(model, name)
    return model


def refused(answer: Answer, codes: Iterable[str]) -> None:
    """Raises Violation unless an answer is an error with one of some codes and a text."""
    expect(answer.code in codes, "status", " or ".join(sorted(codes)),
           f"{answer.code} {answer.text!r}")  # fmt: skip
    expect(bool(answer.text.strip()), f"text of {answer.code}", "one that says why", "none")
