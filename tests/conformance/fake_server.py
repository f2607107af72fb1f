"""A server of the protocol in pure Python, right unless it is made wrong in one way.

It shows that the suite accepts a server that keeps to the protocol, and refuses those that do not.
"""

import http.server
import json
import math
import threading
import urllib.parse
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from tests.conformance import messages
from tests.conformance.tensors import DATATYPES, Array, from_raw, to_raw

_NAME = "simple"
_HEADER = "Inference-Header-Content-Length"
_MOST_BODY = 16 << 20
_MOST_TEXT = 200

#: What a fake can do wrong, one at a time.
MUTATIONS = (
    "swaps the answers of two callers",
    "ignores the datatype",
    "ignores the shape",
    "accepts raw and typed contents together",
    "accepts too many raw contents",
    "loses the id",
    "answers for an unknown model",
    "answers for an unknown version",
    "answers for an unknown output",
    "lets sizes overflow",
    "ignores bytes behind the last element",
    "states an impossible shape",
    "states a datatype that is not so",
    "says nothing in errors",
    "has a fault of its own",
    "exchanges the outputs",
    "computes only the first row",
    "ends a stream at the first error",
    "does not answer what is wrong",
    "answers no more after an error",
)


class Refused(Exception):
    """A request is not right; str() says why."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    status = 400


class Unknown(Refused):
    """A model or a version does not exist."""

    code = grpc.StatusCode.NOT_FOUND
    status = 404


@dataclass
class Tensor:
    """An input of a request."""

    name: str
    datatype: str
    shape: list[int]
    data: Callable[[str, tuple[int, ...]], Array]


@dataclass
class Fake:
    """The model, behind both fronts.

    Args:
        mutation: one of MUTATIONS; empty: none.
    """

    mutation: str = ""
    broken: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _last: dict[str, Array] | None = None
    counts: list[int] = field(default_factory=lambda: [0, 0])

    def does(self, mutation: str) -> bool:
        """Whether it does one thing wrong."""
        assert mutation in MUTATIONS
        return self.mutation == mutation

    def check_name(self, name: str, version: str) -> None:
        """Raises Unknown unless a model and a version are there."""
        if name != _NAME and not self.does("answers for an unknown model"):
            raise Unknown(f"model: expected {_NAME}, got {name[:_MOST_TEXT]!r}")
        if version not in ("", "1") and not self.does("answers for an unknown version"):
            raise Unknown(f"version: expected 1, got {version[:_MOST_TEXT]!r}")

    def metadata(self) -> dict[str, Any]:
        """The model, as it says."""
        rows = -7 if self.does("states an impossible shape") else -1
        datatype = "INT64" if self.does("states a datatype that is not so") else "INT32"
        return {
            "name": _NAME, "versions": ["1"], "platform": "onnx_onnxv1",
            "inputs": [_tensor(f"INPUT{each}", "INT32", rows) for each in range(2)],
            "outputs": [_tensor(f"OUTPUT{each}", datatype, rows) for each in range(2)],
        }  # fmt: skip

    def compute(self, tensors: Sequence[Tensor], wanted: Sequence[str]) -> dict[str, Array]:
        """Sum and difference."""
        names = [each.name[:_MOST_TEXT] for each in tensors]
        if sorted(names) != ["INPUT0", "INPUT1"]:
            raise Refused(f"inputs: expected INPUT0 and INPUT1, got {names}")
        arrays = {each.name: self._array(each) for each in tensors}
        one, other = arrays["INPUT0"], arrays["INPUT1"]
        if one.shape != other.shape:
            raise Refused(f"inputs: expected one batch size, got {one.shape} and {other.shape}")
        results = {"OUTPUT0": one + other, "OUTPUT1": one - other}
        if self.does("exchanges the outputs"):
            results = {"OUTPUT0": results["OUTPUT1"], "OUTPUT1": results["OUTPUT0"]}
        if self.does("computes only the first row"):
            results = {name: each[:1].repeat(len(each), 0) for name, each in results.items()}
        for name in wanted:
            if name not in results and not self.does("answers for an unknown output"):
                raise Refused(f"outputs: expected OUTPUT0 or OUTPUT1, got {name[:_MOST_TEXT]!r}")
        with self._lock:
            self.counts[0] += 1
            self.counts[1] += len(one)
            if self.does("swaps the answers of two callers"):
                results, self._last = self._last or results, results
        return {name: results[name] for name in dict.fromkeys(wanted or results) if name in results}

    def _array(self, tensor: Tensor) -> Array:
        ignored = self.does("ignores the datatype")
        if tensor.datatype != "INT32" and not ignored:
            raise Refused(f"datatype: expected INT32, got {tensor.datatype[:_MOST_TEXT]!r}")
        shape = tuple(tensor.shape)
        if self.does("lets sizes overflow") and len(shape) == 2:
            shape = (shape[0] % (1 << 28), shape[1])
        if self.does("ignores the shape"):
            shape = (1, 16)
        if len(shape) != 2 or shape[1] != 16 or not 0 <= shape[0] < 1000:
            raise Refused(f"shape: expected [batch, 16], got {shape[:8]}")
        return tensor.data("INT32", shape)

    def text(self, error: Refused) -> str:
        """What an error says."""
        if self.does("answers no more after an error"):
            self.broken = True
        return "" if self.does("says nothing in errors") else str(error)


def _tensor(name: str, datatype: str, rows: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [rows, 16]}


class _Grpc(grpc.GenericRpcHandler):
    """The gRPC front."""

    def __init__(self, fake: Fake) -> None:
        self._fake = fake
        self._methods: dict[str, Callable[[bytes], Any]] = {
            "ServerLive": lambda data: messages.ServerLiveResponse(live=True),
            "ServerReady": lambda data: messages.ServerReadyResponse(ready=True),
            "ModelReady": self._ready,
            "ServerMetadata": lambda data: messages.ServerMetadataResponse(
                name="fake", version="1"
            ),
            "ModelMetadata": self._metadata,
            "ModelInfer": self._infer,
            "ModelStatistics": self._statistics,
        }

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """See GenericRpcHandler.service."""
        if not details.method.startswith(messages.SERVICE):
            return None
        name = details.method.removeprefix(messages.SERVICE)
        if name == "ModelStreamInfer":
            return grpc.stream_stream_rpc_method_handler(self._stream)
        method = self._methods.get(name)
        return method and grpc.unary_unary_rpc_method_handler(
            lambda *call: self._call(method, *call)
        )

    def _call(
        self, method: Callable[[bytes], Any], data: bytes, context: grpc.ServicerContext
    ) -> bytes:
        if self._fake.broken:
            context.abort(grpc.StatusCode.UNAVAILABLE, "broken")
        try:
            answer: bytes = method(data).SerializeToString()
        except Refused as error:
            if self._fake.does("does not answer what is wrong"):
                threading.Event().wait(context.time_remaining())
            code = error.code
            if self._fake.does("has a fault of its own"):
                code = grpc.StatusCode.UNKNOWN
            context.abort(code, self._fake.text(error))
        return answer

    def _parsed(self, kind: Any, data: bytes) -> Any:
        try:
            return kind.FromString(data)
        except Exception as error:  # noqa: BLE001 # which one depends on protobuf's version
            raise Refused("message: expected one of the protocol, got other bytes") from error

    def _ready(self, data: bytes) -> Any:
        request = self._parsed(messages.ModelReadyRequest, data)
        self._fake.check_name(request.name, request.version)
        return messages.ModelReadyResponse(ready=True)

    def _metadata(self, data: bytes) -> Any:
        request = self._parsed(messages.ModelMetadataRequest, data)
        self._fake.check_name(request.name, request.version)
        return messages.ModelMetadataResponse(**self._fake.metadata())

    def _statistics(self, data: bytes) -> Any:
        request = self._parsed(messages.ModelStatisticsRequest, data)
        self._fake.check_name(request.name or _NAME, request.version)
        calls, rows = self._fake.counts
        response = messages.ModelStatisticsResponse()
        stats = response.model_stats.add(
            name=_NAME, version="1", inference_count=rows, execution_count=calls
        )
        stats.inference_stats.success.count = calls
        return response

    def _infer(self, data: bytes) -> Any:
        request = self._parsed(messages.ModelInferRequest, data)
        fake = self._fake
        fake.check_name(request.model_name, request.model_version)
        raw = list(request.raw_input_contents)
        typed = [each for each in request.inputs if each.contents.ByteSize()]
        if raw and typed and not fake.does("accepts raw and typed contents together"):
            raise Refused("contents: expected raw or typed ones, got both")
        surplus = len(raw) > len(request.inputs) and fake.does("accepts too many raw contents")
        if raw and len(raw) != len(request.inputs) and not surplus and not typed:
            raise Refused(f"raw_input_contents: expected {len(request.inputs)}, got {len(raw)}")
        tensors = [
            Tensor(each.name, each.datatype, list(each.shape),
                   self._reader(each, raw[index] if index < len(raw) else None))
            for index, each in enumerate(request.inputs)
        ]  # fmt: skip
        results = fake.compute(tensors, [each.name for each in request.outputs])
        response = messages.ModelInferResponse(model_name=_NAME, model_version="1")
        if not fake.does("loses the id"):
            response.id = request.id
        for name, array in results.items():
            response.outputs.add(name=name, datatype="INT32", shape=array.shape)
            response.raw_output_contents.append(to_raw(array))
        return response

    def _reader(self, tensor: Any, raw: bytes | None) -> Callable[[str, tuple[int, ...]], Array]:
        def read(datatype: str, shape: tuple[int, ...]) -> Array:
            count = math.prod(shape)
            if raw is not None:
                data = raw
                if self._fake.does("ignores bytes behind the last element"):
                    data = data[: 4 * count]
                if len(data) != 4 * count:
                    raise Refused(f"raw_input_contents: expected {4 * count} bytes, got {len(raw)}")
                return from_raw(data, datatype, shape, "raw_input_contents")
            filled = [descriptor.name for descriptor, _ in tensor.contents.ListFields()]
            values = tensor.contents.int_contents
            if filled not in ([], ["int_contents"]) or len(values) != count:
                raise Refused(f"contents: expected {count} of int_contents, got {filled}")
            return np.array(values, DATATYPES[datatype].numpy).reshape(shape)

        return read

    def _stream(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for data in requests:
            response = messages.ModelStreamInferResponse()
            try:
                response.infer_response.CopyFrom(self._infer(data))
            except Refused as error:
                if self._fake.does("ends a stream at the first error"):
                    context.abort(error.code, str(error))
                response.error_message = self._fake.text(error)
            yield response.SerializeToString()


class _Http(http.server.BaseHTTPRequestHandler):
    """The HTTP front."""

    protocol_version = "HTTP/1.1"
    timeout = 5.0
    disable_nagle_algorithm = True
    fake: Fake

    def log_message(self, format: str, *values: object) -> None:
        """Nothing is logged."""

    def do_GET(self) -> None:
        """Health and metadata."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Inference."""
        self._answer(self._post)

    def _answer(self, method: Callable[[list[str]], tuple[Any, bytes]]) -> None:
        if self.fake.broken:
            self._send(503, {"error": "broken"}, b"")
            return
        parts = [
            urllib.parse.unquote(each, errors="surrogateescape")
            for each in self.path.split("/")[1:]
        ]
        try:
            answer, tail = method(parts)
        except Refused as error:
            if self.fake.does("does not answer what is wrong"):
                threading.Event().wait(self.timeout)
            status = 500 if self.fake.does("has a fault of its own") else error.status
            self._send(status, {"error": self.fake.text(error)}, b"")
            return
        self._send(200, answer, tail)

    def _send(self, status: int, answer: Any, tail: bytes) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) + len(tail)))
        if tail:
            self.send_header(_HEADER, str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body + tail)

    def _get(self, parts: list[str]) -> tuple[Any, bytes]:
        match parts:
            case ["v2"]:
                return {"name": "fake", "version": "1", "extensions": []}, b""
            case ["v2", "health", "live" | "ready"]:
                return {"live": True}, b""
            case ["v2", "models", name, "versions", version, *rest]:
                pass
            case ["v2", "models", name, *rest]:
                version = ""
            case _:
                raise Unknown("path: expected one of the protocol")
        self.fake.check_name(name, version)
        if rest == ["ready"]:
            return {"name": name, "ready": True}, b""
        if rest:
            raise Unknown("path: expected one of the protocol")
        return self.fake.metadata(), b""

    def _post(self, parts: list[str]) -> tuple[Any, bytes]:
        body = self._decoded(self._read())
        match parts:
            case ["v2", "models", name, "versions", version, "infer"] if version:
                pass
            case ["v2", "models", name, "infer"]:
                version = ""
            case _:
                raise Unknown("path: expected one of the protocol")
        self.fake.check_name(name, version)
        end = self._json_length(len(body))
        try:
            request = json.loads(body[:end].decode(), parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise Refused("body: expected JSON, got what is none") from error
        if not isinstance(request, dict):
            raise Refused("body: expected an object, got none")
        return self._infer(request, body[end:])

    def _read(self) -> bytes:
        """The body; what is wrong with its length ends the connection."""
        lengths = self.headers.get_all("Content-Length", [])
        self.close_connection = self.headers.get("Connection", "").lower() == "close"
        coding = self.headers.get("Transfer-Encoding")
        if coding == "chunked" and not lengths:
            return self._chunks()
        if coding or len(lengths) != 1 or not lengths[0].isdecimal():
            self.close_connection = True
            raise Refused("Content-Length: expected one number")
        data = self.rfile.read(int(lengths[0]))
        if len(data) < int(lengths[0]):
            self.close_connection = True
            raise Refused("body: expected all of it, got a part")
        return data

    def _chunks(self) -> bytes:
        data = b""
        while True:
            line = self.rfile.readline(20).strip()
            try:
                size = int(line, 16)
            except ValueError as error:
                self.close_connection = True
                raise Refused("chunk: expected its length") from error
            data += self.rfile.read(size)
            self.rfile.readline()
            if not size:
                return data

    def _decoded(self, body: bytes) -> bytes:
        coding = self.headers.get("Content-Encoding", "identity")
        if coding == "identity":
            return body
        if coding != "gzip":
            raise Refused(f"Content-Encoding: expected gzip, got {coding!r}")
        decoder = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            data = decoder.decompress(body, _MOST_BODY)
        except zlib.error as error:
            raise Refused("body: expected gzip, got other bytes") from error
        if not decoder.eof:
            raise Refused(f"body: expected all of at most {_MOST_BODY} bytes")
        return data

    def _json_length(self, size: int) -> int:
        value = self.headers.get(_HEADER, str(size))
        if not value.isdecimal() or len(value) > 18 or int(value) > size:
            raise Refused(f"{_HEADER}: expected at most {size}, got {value[:_MOST_TEXT]!r}")
        return int(value)

    def _infer(self, request: dict[str, Any], tail: bytes) -> tuple[Any, bytes]:
        tensors, offset = [], 0
        for each in _list_of_objects(request.get("inputs"), "inputs"):
            name, datatype, shape = each.get("name"), each.get("datatype"), each.get("shape")
            if not isinstance(name, str) or not isinstance(datatype, str):
                raise Refused("inputs: expected a name and a datatype")
            if not isinstance(shape, list) or not all(type(size) is int for size in shape):
                raise Refused("shape: expected a list of whole numbers")
            size = _parameters(each).get("binary_data_size")
            if (size is None) == ("data" not in each):
                raise Refused(f"{name[:_MOST_TEXT]!r}: expected data or binary_data_size")
            if size is None:
                tensors.append(Tensor(name, datatype, shape, self._from_json(each["data"])))
                continue
            if type(size) is not int or not 0 <= size <= len(tail) - offset:
                raise Refused("binary_data_size: expected at most what is there")
            tensors.append(
                Tensor(name, datatype, shape, self._from_bytes(tail[offset : offset + size]))
            )
            offset += size
        if offset != len(tail) and not self.fake.does("ignores bytes behind the last element"):
            raise Refused(f"body: expected {offset} bytes behind the JSON, got {len(tail)}")
        as_bytes = _parameters(request).get("binary_data_output") is True
        wanted = {}
        for each in _list_of_objects(request.get("outputs") or [], "outputs"):
            if not isinstance(each.get("name"), str):
                raise Refused("outputs: expected names")
            wanted[each["name"]] = _parameters(each).get("binary_data", as_bytes) is True
        results = self.fake.compute(tensors, list(wanted))
        return self._response(request, results, lambda name: wanted.get(name, as_bytes))

    def _response(
        self, request: dict[str, Any], results: dict[str, Array], as_bytes: Callable[[str], bool]
    ) -> tuple[Any, bytes]:
        outputs, tail = [], b""
        for name, array in results.items():
            output: dict[str, Any] = {
                "name": name, "datatype": "INT32", "shape": list(array.shape),
            }  # fmt: skip
            if as_bytes(name):
                output["parameters"] = {"binary_data_size": array.nbytes}
                tail += to_raw(array)
            else:
                output["data"] = array.ravel().tolist()
            outputs.append(output)
        answer = {"model_name": _NAME, "model_version": "1", "outputs": outputs}
        if "id" in request and not self.fake.does("loses the id"):
            if not isinstance(request["id"], str):
                raise Refused("id: expected a text")
            answer["id"] = request["id"]
        return answer, tail

    def _from_bytes(self, data: bytes) -> Callable[[str, tuple[int, ...]], Array]:
        def read(datatype: str, shape: tuple[int, ...]) -> Array:
            if len(data) != 4 * math.prod(shape):
                raise Refused(f"bytes: expected {4 * math.prod(shape)}, got {len(data)}")
            return from_raw(data, datatype, shape, "bytes")

        return read

    def _from_json(self, data: Any) -> Callable[[str, tuple[int, ...]], Array]:
        def read(datatype: str, shape: tuple[int, ...]) -> Array:
            if not isinstance(data, list):
                raise Refused("data: expected a list")
            try:
                array = np.array(data, object)
            except ValueError as error:
                raise Refused("data: expected rows of one length") from error
            values = array.ravel().tolist()
            numbers = np.iinfo(np.int32)
            if array.shape not in (shape, (math.prod(shape),)):
                raise Refused(f"data: expected shape {shape}, got {array.shape}")
            for value in values:
                if type(value) is not int or not numbers.min <= value <= numbers.max:
                    raise Refused("data: expected numbers of INT32")
            return np.array(values, DATATYPES[datatype].numpy).reshape(shape)

        return read


def _no_constant(text: str) -> None:
    raise ValueError(text)


def _list_of_objects(value: Any, field: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise Refused(f"{field}: expected a list of objects")
    return value


def _parameters(owner: dict[str, Any]) -> dict[str, Any]:
    parameters = owner.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise Refused("parameters: expected an object")
    return parameters


class _Httpd(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


@contextmanager
def serving(mutation: str = "") -> Iterator[tuple[str, str]]:
    """Runs a fake on free ports; yields the addresses of gRPC and HTTP."""
    fake = Fake(mutation)
    rpc = grpc.server(futures.ThreadPoolExecutor(32), handlers=[_Grpc(fake)])
    port = rpc.add_insecure_port("127.0.0.1:0")
    rpc.start()
    httpd = _Httpd(("127.0.0.1", 0), type("Handler", (_Http,), {"fake": fake}))
    thread = threading.Thread(target=httpd.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"127.0.0.1:{port}", f"127.0.0.1:{httpd.server_address[1]}"
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()
        rpc.stop(None).wait()
