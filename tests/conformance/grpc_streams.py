"""ModelStreamInfer, an extension: a message that is refused does not end the stream."""

import queue
from collections.abc import Iterator
from typing import Any

import grpc

from tests.conformance import messages
from tests.conformance.grpc_cases import EXTENSIONS
from tests.conformance.grpc_server import GrpcServer, check_output, outputs_of, parsed, raw_request
from tests.conformance.models import Question, adder, sum_question
from tests.conformance.suite import Case, NotApplicable, Violation, expect

_METHOD = messages.SERVICE + "ModelStreamInfer"


class Stream:
    """A stream to a server; leave the `with` to end it."""

    def __init__(self, server: GrpcServer) -> None:
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        call: grpc.StreamStreamMultiCallable[bytes, bytes] = server.channel.stream_stream(_METHOD)
        self._answers = call(iter(self._requests.get, None), timeout=server.limit_s)

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *reason: object) -> None:
        self._requests.put(None)
        self._answers.cancel()

    def send(self, request: Any) -> None:
        """Sends a message."""
        self._requests.put(request.SerializeToString())

    def end(self) -> None:
        """Sends no more."""
        self._requests.put(None)

    def receive(self) -> Any:
        """The next answer.

        Raises:
            NotApplicable: if the server has no streams.
            Violation: if the stream has ended, or there is no answer within the limit.
        """
        try:
            data = next(self._answers)
        except StopIteration:
            raise Violation("stream: expected an answer, got its end") from None
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNIMPLEMENTED:
                raise NotApplicable("ModelStreamInfer is not implemented") from error
            raise Violation(
                f"stream: expected an answer, got {error.code().name} {error.details()!r}"
            ) from error
        try:
            return parsed(messages.ModelStreamInferResponse, data)
        except Violation:
            # The specification has no streams; some servers answer with ModelInferResponse.
            raise NotApplicable("ModelStreamInfer is not Triton's: its answers differ") from None

    def ended(self) -> None:
        """Raises Violation unless the server ends the stream, with OK."""
        try:
            extra = next(self._answers)
        except StopIteration:
            return
        except grpc.RpcError as error:
            raise Violation(f"end of the stream: expected OK, got {error.code().name}") from error
        raise Violation(f"stream: expected its end, got {len(extra)} bytes")


def cases() -> Iterator[Case[GrpcServer]]:
    """All of them."""
    for name, check in [
        ("an answer for each message", answers),
        ("ten messages at once", ten_at_once),
        ("a stream without messages", nothing),
    ]:
        yield Case("stream", name, EXTENSIONS, check)
    for name, check in [
        ("truncated contents, and it goes on", truncated),
        ("an unknown model, and it goes on", unknown_model),
        ("an empty message, and it goes on", empty),
        ("good ones beside bad ones", mixed),
    ]:
        yield Case("stream", name, EXTENSIONS, check, malformed=True)


def _good(server: GrpcServer, number: int) -> tuple[Any, Question]:
    question = sum_question(adder(server.models), 1 + number % 3, 1000 * number)
    request = raw_request(question)
    request.id = f"message {number}"
    return request, question


def _right(response: Any, question: Question, number: int) -> None:
    expect(not response.error_message, "error_message", "none", response.error_message)
    answer = response.infer_response
    expect(answer.id == f"message {number}", "id", f"message {number}", answer.id)
    got = outputs_of(answer)
    for name, right in question.answer.items():
        check_output(got, name, right)


def _go_on(stream: Stream, server: GrpcServer, number: int) -> None:
    request, question = _good(server, number)
    stream.send(request)
    _right(stream.receive(), question, number)


def answers(server: GrpcServer) -> None:
    """One message, one answer; then the end."""
    with Stream(server) as stream:
        for number in range(5):
            _go_on(stream, server, number)
        stream.end()
        stream.ended()


def ten_at_once(server: GrpcServer) -> None:
    """Ten answers, whose ids say which is which."""
    with Stream(server) as stream:
        sent = {}
        for number in range(10):
            request, question = _good(server, number)
            sent[request.id] = question, number
            stream.send(request)
        stream.end()
        while sent:
            response = stream.receive()
            identity = response.infer_response.id
            expect(identity in sent, "id", sorted(sent), identity or response.error_message)
            _right(response, *sent.pop(identity))
        stream.ended()


def nothing(server: GrpcServer) -> None:
    """It ends with OK."""
    _probe(server)
    with Stream(server) as stream:
        stream.end()
        stream.ended()


def _probe(server: GrpcServer) -> None:
    """NotApplicable if the server has no streams, which an empty stream alone does not show."""
    with Stream(server) as stream:
        _go_on(stream, server, 0)


def _refused(response: Any) -> None:
    expect(bool(response.error_message.strip()), "error_message", "one that says why",
           str(response.infer_response) or "none")  # fmt: skip


def truncated(server: GrpcServer) -> None:
    """An error message, and the next answer is right."""
    with Stream(server) as stream:
        _go_on(stream, server, 0)
        request, _ = _good(server, 1)
        request.raw_input_contents[0] = request.raw_input_contents[0][:-1]
        stream.send(request)
        _refused(stream.receive())
        _go_on(stream, server, 2)


def unknown_model(server: GrpcServer) -> None:
    """An error message, and the next answer is right."""
    with Stream(server) as stream:
        _go_on(stream, server, 0)
        request, _ = _good(server, 1)
        request.model_name = "no-such-model"
        stream.send(request)
        _refused(stream.receive())
        _go_on(stream, server, 2)


def empty(server: GrpcServer) -> None:
    """An error message, and the next answer is right."""
    with Stream(server) as stream:
        _go_on(stream, server, 0)
        stream.send(messages.ModelInferRequest())
        _refused(stream.receive())
        _go_on(stream, server, 2)


def mixed(server: GrpcServer) -> None:
    """Six good ones and six bad ones: six answers and six error messages."""
    with Stream(server) as stream:
        sent = {}
        for number in range(6):
            request, question = _good(server, number)
            sent[request.id] = question, number
            stream.send(request)
            request.inputs[0].datatype = "FP64"
            request.id = "bad"
            stream.send(request)
        stream.end()
        errors = 0
        for _ in range(12):
            response = stream.receive()
            if response.error_message:
                errors += 1
            else:
                _right(response, *sent.pop(response.infer_response.id))
        expect(errors == 6 and not sent, "errors and answers left", (6, []), (errors, list(sent)))
        stream.ended()
