"""A server under test, over HTTP."""

import http.client
import json
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tests.conformance.models import Model, Question, Tensor, adder, sum_question
from tests.conformance.suite import NotApplicable, Violation, expect, shortened
from tests.conformance.tensors import DATATYPES, Array, equal, from_raw, to_raw

#: A request is the caller's fault in itself.
BAD = frozenset({400, 413, 422})
#: What a request names does not exist.
UNKNOWN_NAME = BAD | {403, 404, 414}
#: More than the server accepts, or a form that it does not know.
NOT_DONE = BAD | {411, 415, 417, 431, 501}
#: There is nothing at a path, or not with this verb.
NO_ROUTE = frozenset({400, 403, 404, 405, 414, 501})

HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Reply:
    """What a server has answered.

    Args:
        status: of HTTP.
        headers: names in lower case.
        body: its bytes.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self, end: int | None = None) -> Any:
        """The body, or its beginning, as JSON; raises Violation unless it is."""
        try:
            return json.loads(self.body[:end].decode())
        except ValueError as error:
            raise Violation(f"body: expected JSON, got {shortened(self.body[:200])}") from error


class HttpServer:
    """One connection to a server, kept as long as the server does.

    Args:
        address: HOST:PORT.
        limit_s: for each request.
        names: of the models to look at.
    """

    def __init__(self, address: str, limit_s: float, names: Sequence[str]) -> None:
        host, _, port = address.rpartition(":")
        self.host, self.port = host.strip("[]"), int(port)
        self.limit_s = limit_s
        self._names = names
        self._kept: http.client.HTTPConnection | None = None

    def close(self) -> None:
        """Ends the connection."""
        if self._kept is not None:
            self._kept.close()
        self._kept = None

    def new(self) -> "HttpServer":
        """Another connection to the same server."""
        return HttpServer(f"{self.host}:{self.port}", self.limit_s, self._names)

    def send(
        self,
        verb: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Asks once.

        Args:
            verb: such as GET.
            path: from the slash on.
            body: bytes, or chunks.
            headers: besides Host and the length.

        Raises:
            Violation: if there is no answer within the limit, or the connection ends without one.
        """
        chunked = body is not None and not isinstance(body, bytes)
        fresh = self._kept is None
        if self._kept is None:
            self._kept = http.client.HTTPConnection(self.host, self.port, timeout=self.limit_s)
        connection = self._kept
        try:
            connection.request(verb, path, body, dict(headers or {}), encode_chunked=chunked)
            response = connection.getresponse()
            data = response.read()
        except TimeoutError as error:
            self.close()
            raise Violation(
                f"{verb} {shortened(path)}: expected an answer within {self.limit_s:g} s, got none"
            ) from error
        except (http.client.HTTPException, OSError) as error:
            self.close()
            if not fresh and isinstance(error, http.client.RemoteDisconnected | BrokenPipeError):
                return self.send(verb, path, body, headers)  # Was closed while it was idle.
            raise Violation(
                f"{verb} {shortened(path)}: expected an answer, got {type(error).__name__}: {error}"
            ) from error
        if response.will_close:
            self.close()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, found, data)

    def raw(self, data: bytes, finish: bool = True) -> bytes:
        """Sends bytes over a connection of its own, and returns all that comes until it ends.

        Args:
            data: what is sent.
            finish: whether the end of what is sent is announced.

        Raises:
            Violation: if the connection does not end within the limit.
        """
        answer = b""
        try:
            with socket.create_connection((self.host, self.port), self.limit_s) as connection:
                connection.sendall(data)
                if finish:
                    connection.shutdown(socket.SHUT_WR)
                while chunk := connection.recv(65536):
                    answer += chunk
        except TimeoutError as error:
            raise Violation(
                f"connection: expected its end within {self.limit_s:g} s, got {answer[:80]!r}"
            ) from error
        except OSError:
            return answer  # The server has ended the connection before all was sent.
        return answer

    def post(self, model: str, body: Any, headers: Mapping[str, str] | None = None) -> Reply:
        """Asks a model.

        Args:
            model: its path behind /v2/models/.
            body: bytes, or what becomes JSON.
            headers: besides those of the content.
        """
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.send(
            "POST", f"/v2/models/{model}/infer", data,
            {"Content-Type": "application/json", **(headers or {})},
        )  # fmt: skip

    def get(self, path: str) -> Any:
        """The JSON of an answer that has to be 200."""
        reply = self.send("GET", path)
        expect(reply.status == 200, f"GET {path}: status", 200, f"{reply.status} {reply.body!r}")
        return reply.json()

    @cached_property
    def models(self) -> Mapping[str, Model]:
        """The models to look at that the server has, by name."""
        found = {}
        for name in self._names:
            reply = self.send("GET", f"/v2/models/{name}")
            if reply.status == 200:
                found[name] = model_of(reply.json())
        return found

    def still_right(self) -> None:
        """Raises Violation unless a good question is answered rightly on this connection."""
        try:
            model = adder(self.models)
        except NotApplicable:
            reply = self.send("GET", "/v2/health/live")
            expect(reply.status == 200, "afterwards, live", 200, reply.status)
            return
        try:
            self.check(sum_question(model))
        except Violation as reason:
            raise Violation(f"a good request afterwards: {reason}") from reason

    def check(
        self,
        question: Question,
        change: Callable[[dict[str, Any]], None] = lambda request: None,
        binary: bool = False,
        path: str = "",
    ) -> Any:
        """Asks a question, and compares the answer with the right one.

        Args:
            question: what to ask.
            change: changes the request before it is sent.
            binary: whether tensors are sent, and asked for, as bytes behind the JSON.
            path: behind the model's name.

        Returns:
            The JSON of the response.

        Raises:
            Violation: if the answer is not right.
        """
        request, tail = binary_request(question) if binary else (json_request(question), b"")
        change(request)
        body = json.dumps(request).encode()
        headers = {HEADER_LENGTH: str(len(body))} if tail else {}
        reply = self.post(question.model + path, body + tail, headers)
        if binary and reply.status in NOT_DONE:
            raise NotApplicable(f"binary tensors are refused: {reply.status}")
        response, got = answer_of(reply)
        expect(response.get("model_name") == question.model, "model_name", question.model,
               response.get("model_name"))  # fmt: skip
        if "id" in request:
            expect(response.get("id") == request["id"], "id", repr(request["id"]),
                   repr(response.get("id")))  # fmt: skip
        wanted = [each["name"] for each in request.get("outputs", [])] or list(question.answer)
        expect(set(got) == set(wanted), "outputs", sorted(wanted), sorted(got))
        for name, right in question.answer.items():
            if name in got:
                expect(got[name].shape == right.shape, f"{name}.shape", list(right.shape),
                       list(got[name].shape))  # fmt: skip
                expect(equal(got[name], right), name, shortened(right.tolist()), got[name].tolist())
        for each in response["outputs"]:
            expect(each["datatype"] == question.datatypes.get(each["name"]),
                   f"{each['name']}.datatype", question.datatypes.get(each["name"]),
                   each["datatype"])  # fmt: skip
        return response


def json_request(question: Question, nested: bool = False) -> dict[str, Any]:
    """A request whose tensors are JSON.

    Args:
        question: what is asked.
        nested: whether lists are nested as the axes are.
    """
    return {
        "inputs": [
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": question.datatypes[name],
                "data": _jsonable(array if nested else array.ravel()),
            }
            for name, array in question.inputs.items()
        ]
    }


def _jsonable(array: Array) -> Any:
    if array.dtype == object:
        return [each.decode() for each in array.tolist()]
    return array.tolist()


def binary_request(question: Question) -> tuple[dict[str, Any], bytes]:
    """A request whose tensors are bytes behind the JSON, which asks for such an answer."""
    inputs, tail = [], b""
    for name, array in question.inputs.items():
        data = to_raw(array)
        inputs.append({
            "name": name, "shape": list(array.shape), "datatype": question.datatypes[name],
            "parameters": {"binary_data_size": len(data)},
        })  # fmt: skip
        tail += data
    return {"inputs": inputs, "parameters": {"binary_data_output": True}}, tail


def answer_of(reply: Reply) -> tuple[dict[str, Any], dict[str, Array]]:
    """The JSON of an answer that has to be 200, and its tensors by their names."""
    expect(reply.status == 200, "status", 200, f"{reply.status} {reply.body[:200]!r}")
    length = reply.headers.get(HEADER_LENGTH.lower())
    end = len(reply.body) if length is None else int(length)
    response = reply.json(end)
    offset, arrays = end, {}
    expect(isinstance(response, dict) and isinstance(response.get("outputs"), list), "body",
           "an object with outputs", response)  # fmt: skip
    for tensor in response["outputs"]:
        name = tensor["name"]
        expect(name not in arrays, "outputs", "names that differ", f"{name} twice")
        size = tensor.get("parameters", {}).get("binary_data_size")
        if size is None:
            arrays[name] = _from_json(tensor)
        else:
            data = reply.body[offset : offset + size]
            arrays[name] = from_raw(data, tensor["datatype"], tensor["shape"], name)
            offset += size
    expect(offset == len(reply.body), "body", f"{offset} bytes", len(reply.body))
    return response, arrays


def _from_json(tensor: Mapping[str, Any]) -> Array:
    name, shape = tensor["name"], tensor["shape"]
    datatype = DATATYPES.get(tensor["datatype"])
    if datatype is None:
        raise Violation(f"{name}.datatype: expected one of the protocol, got {tensor['datatype']}")
    values = list(_flat(tensor.get("data")))
    count = int(np.prod(shape, dtype=np.int64))
    expect(len(values) == count, f"{name}.data", f"{count} elements", len(values))
    array = np.empty(count, datatype.numpy)
    for index, value in enumerate(values):
        array[index] = value.encode() if isinstance(value, str) else value
    return array.reshape(shape)


def _flat(data: Any) -> Iterable[Any]:
    if not isinstance(data, list):
        yield data
        return
    for each in data:
        yield from _flat(each)


def model_of(metadata: Any) -> Model:
    """A model, of its metadata."""
    try:
        return Model(
            metadata["name"],
            tuple(metadata.get("versions") or ()),
            _tensors(metadata["inputs"]),
            _tensors(metadata["outputs"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise Violation(
            f"metadata: expected name, inputs and outputs, got {shortened(metadata)}"
        ) from error


def _tensors(found: Iterable[Mapping[str, Any]]) -> tuple[Tensor, ...]:
    return tuple(Tensor(each["name"], each["datatype"], tuple(each["shape"])) for each in found)


def refused(reply: Reply, statuses: Iterable[int], with_error: bool = True) -> None:
    """Raises Violation unless an answer is an error with one of some statuses.

    Args:
        reply: the answer.
        statuses: those that are right.
        with_error: whether the body has to be an object with an error.
    """
    expect(reply.status in statuses, "status", " or ".join(map(str, sorted(statuses))),
           f"{reply.status} {reply.body[:200]!r}")  # fmt: skip
    if with_error:
        body = reply.json()
        error = body.get("error") if isinstance(body, dict) else None
        expect(isinstance(error, str) and bool(error.strip()), f"body of {reply.status}",
               '{"error": "why"}', body)  # fmt: skip
