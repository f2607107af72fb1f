"""Everything that tritonclient can ask of a server, as one JSON object on standard output.

    triton_session.py FRONT ADDRESS FILE

runs in the environment of a tritonclient, which may be old, so it uses nothing else: FRONT is grpc,
grpc-aio, http or http-aio; FILE is a JPEG for the model `colours`. Each value of the object is what
one call gave, or {"error": ...}.
"""

import asyncio
import functools
import inspect
import json
import queue
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np

ONE = np.arange(16, dtype=np.int32).reshape(1, 16)
OTHER = np.ones((1, 16), np.int32)
#: The pixels of which the model `mnist` of the tests says "3".
PIXELS = np.zeros((1, 28, 28, 1), np.uint8)
PIXELS[0, 0, 3, 0] = 255


class Session:
    """Calls of one client, sync or asyncio.

    Args:
        module: tritonclient.grpc or one like it.
        client: made.
        picture: bytes of a file.
    """

    def __init__(self, module: Any, client: Any, picture: bytes) -> None:
        self.module = module
        self.client = client
        self.picture = picture
        self.found: dict[str, Any] = {}

    async def note(
        self, name: str, call: Callable[[], Any], read: Callable[[Any], Any] = lambda value: value
    ) -> None:
        """Keeps what a call gives."""
        try:
            value = call()
            if inspect.isawaitable(value):
                value = await value
            self.found[name] = read(value)
        except Exception as error:  # noqa: BLE001 # all of them are what the caller compares
            status = error.status() if hasattr(error, "status") else None
            self.found[name] = {"error": type(error).__name__, "status": status, "text": str(error)}

    def tensor(self, name: str, array: Any, datatype: str, **options: bool) -> Any:
        """An input."""
        tensor = self.module.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array, **options)
        return tensor

    def sums(self, **options: bool) -> list[Any]:
        """The inputs of `simple`."""
        return [
            self.tensor("INPUT0", ONE, "INT32", **options),
            self.tensor("INPUT1", OTHER, "INT32", **options),
        ]

    async def ask(self) -> None:
        """All calls that every front has."""
        client, module = self.client, self.module
        await self.note("live", client.is_server_live)
        await self.note("ready", client.is_server_ready)
        await self.note("model ready", lambda: client.is_model_ready("simple"))
        await self.note("version ready", lambda: client.is_model_ready("simple", "1"))
        await self.note("unknown model ready", lambda: client.is_model_ready("no-such-model"))
        await self.note("server", client.get_server_metadata, plain)
        await self.note("metadata", lambda: client.get_model_metadata("simple"), plain)
        await self.note("configuration", lambda: client.get_model_config("simple"), plain)
        await self.note("index", client.get_model_repository_index, plain)
        await self.note("sum", lambda: client.infer("simple", self.sums()), tensors)
        await self.note(
            "one output",
            lambda: client.infer(
                "simple", self.sums(), outputs=[module.InferRequestedOutput("OUTPUT1")]
            ),
            tensors,
        )
        await self.note(
            "id and version",
            lambda: client.infer("simple", self.sums(), model_version="1", request_id="an id"),
            lambda result: [plain(result.get_response()).get(key)
                            for key in ("id", "model_name", "model_version")],
        )  # fmt: skip
        await self.note(
            "unsigned pixels",
            lambda: client.infer("mnist", [self.tensor("pixels", PIXELS, "UINT8")]),
            tensors,
        )
        await self.note(
            "floating-point pixels",
            lambda: client.infer("mnist", [self.tensor("pixels", PIXELS.astype("f4"), "FP32")]),
            tensors,
        )
        files = np.array([self.picture, self.picture], object)
        await self.note(
            "pictures",
            lambda: client.infer("colours", [self.tensor("pixels", files, "BYTES")]),
            tensors,
        )
        await self.note(
            "a bad picture",
            lambda: client.infer(
                "colours",
                [self.tensor("pixels", np.array([self.picture, b"none"], object), "BYTES")],
            ),
            tensors,
        )
        await self.note(
            "classes",
            lambda: client.infer(
                "mnist",
                [self.tensor("pixels", PIXELS, "UINT8")],
                outputs=[module.InferRequestedOutput("probabilities", class_count=2)],
            ),
            tensors,
        )
        await self.note("wrong shape", self.wrong_shape, tensors)
        await self.note(
            "unknown model", lambda: client.infer("no-such-model", self.sums()), tensors
        )
        await self.note("load", lambda: client.load_model("spare"))
        await self.note("loaded is ready", lambda: client.is_model_ready("spare"))
        await self.note("unload", lambda: client.unload_model("spare"))
        await self.note("unloaded is ready", lambda: client.is_model_ready("spare"))
        await self.note("statistics", lambda: client.get_inference_statistics("simple"), plain)

    def wrong_shape(self) -> Any:
        """Fifteen numbers where there have to be sixteen."""
        short = np.zeros((1, 15), np.int32)
        given = [self.tensor("INPUT0", short, "INT32"), self.tensor("INPUT1", short, "INT32")]
        return self.client.infer("simple", given)


def plain(value: Any) -> Any:
    """A message or a JSON object as plain values."""
    if isinstance(value, dict | list):
        return value
    from google.protobuf import json_format

    return json_format.MessageToDict(value, preserving_proto_field_name=True)


def tensors(result: Any) -> dict[str, Any]:
    """The tensors of an answer."""
    response = result.get_response()
    outputs = response["outputs"] if isinstance(response, dict) else response.outputs
    names = [each["name"] if isinstance(each, dict) else each.name for each in outputs]
    found = {}
    for name in names:
        array = result.as_numpy(name)
        if array.dtype == object:
            found[name] = [each.decode() for each in array.ravel().tolist()]
        else:
            found[name] = array.tolist()
    return found


def typed(address: str) -> list[Any]:
    """The sum of typed contents, by the messages themselves."""
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc  # type: ignore[import-not-found] # in its environment

    request = service_pb2.ModelInferRequest(model_name="simple", id="typed")
    for name, array in (("INPUT0", ONE), ("INPUT1", OTHER)):
        tensor = request.inputs.add(name=name, datatype="INT32", shape=array.shape)
        tensor.contents.int_contents.extend(array.ravel().tolist())
    with grpc.insecure_channel(address) as channel:
        response = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    raw = response.raw_output_contents
    return [response.id, *(np.frombuffer(each, np.int32).tolist() for each in raw)]


def streamed(session: Session) -> list[Any]:
    """A stream of three messages, of which the second is wrong."""
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client = session.client
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    seen = []
    for name in ("simple", "no-such-model", "simple"):
        client.async_stream_infer(name, session.sums(), request_id=f"to {name}")
        result, error = answers.get(timeout=60)
        seen.append("error" if error else [result.get_response().id, tensors(result)])
    client.stop_stream()
    return seen


async def streamed_aio(session: Session) -> list[Any]:
    """The same by asyncio."""

    async def requests() -> AsyncIterator[dict[str, Any]]:
        for name in ("simple", "no-such-model", "simple"):
            yield {"model_name": name, "inputs": session.sums(), "request_id": f"to {name}"}

    seen = []
    async for result, error in session.client.stream_infer(requests()):
        seen.append("error" if error else [result.get_response().id, tensors(result)])
    return seen


def called_back(session: Session) -> Any:
    """async_infer of gRPC with a callback."""
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    session.client.async_infer(
        "simple", session.sums(), callback=lambda result, error: answers.put((result, error))
    )
    result, error = answers.get(timeout=60)
    return str(error) if error else tensors(result)


async def over_grpc(address: str, picture: bytes) -> dict[str, Any]:
    """tritonclient.grpc."""
    import tritonclient.grpc as module  # type: ignore[import-not-found] # in its environment

    with module.InferenceServerClient(address) as client:
        session = Session(module, client, picture)
        await session.ask()
        await session.note("typed", lambda: typed(address))
        await session.note("stream", lambda: streamed(session))
        await session.note("called back", lambda: called_back(session))
    return session.found


async def over_grpc_aio(address: str, picture: bytes) -> dict[str, Any]:
    """tritonclient.grpc.aio."""
    import tritonclient.grpc.aio as module  # type: ignore[import-not-found] # in its environment

    async with module.InferenceServerClient(address) as client:
        session = Session(module, client, picture)
        await session.ask()
        await session.note("stream", lambda: streamed_aio(session))
    return session.found


async def over_http(address: str, picture: bytes) -> dict[str, Any]:
    """tritonclient.http."""
    import tritonclient.http as module  # type: ignore[import-not-found] # in its environment

    with module.InferenceServerClient(address, concurrency=4) as client:
        session = Session(module, client, picture)
        await session.ask()
        plain_sums = session.sums(binary_data=False)
        wanted = [module.InferRequestedOutput(f"OUTPUT{each}", binary_data=False)
                  for each in range(2)]  # fmt: skip
        await session.note(
            "typed", lambda: client.infer("simple", plain_sums, outputs=wanted), tensors
        )
        # As the public example of `simple` does: of two tensors one binary and one JSON, both ways.
        mixed = [
            session.tensor("INPUT0", ONE, "INT32", binary_data=False),
            session.tensor("INPUT1", OTHER, "INT32", binary_data=True),
        ]
        outputs = [module.InferRequestedOutput("OUTPUT0", binary_data=True), wanted[1]]
        for coding in ("gzip", "deflate"):
            call = functools.partial(
                client.infer, "simple", mixed, outputs=outputs,
                headers={"test": "1"}, query_params={"test_1": 1},
                request_compression_algorithm=coding, response_compression_algorithm=coding,
            )  # fmt: skip
            await session.note(f"mixed, {coding}", call, tensors)
        await session.note(
            "query", lambda: client.is_server_live(query_params={"test_1": 1, "test_2": 2})
        )
        await session.note(
            "compressed",
            lambda: client.infer(
                "simple", session.sums(),
                request_compression_algorithm="gzip", response_compression_algorithm="gzip",
            ),
            tensors,
        )  # fmt: skip
        await session.note(
            "called back",
            lambda: client.async_infer("simple", session.sums()).get_result(),
            tensors,
        )
    return session.found


async def over_http_aio(address: str, picture: bytes) -> dict[str, Any]:
    """tritonclient.http.aio."""
    import tritonclient.http.aio as module  # type: ignore[import-not-found] # in its environment

    async with module.InferenceServerClient(address) as client:
        session = Session(module, client, picture)
        await session.ask()
    return session.found


FRONTS = {
    "grpc": over_grpc,
    "grpc-aio": over_grpc_aio,
    "http": over_http,
    "http-aio": over_http_aio,
}

if __name__ == "__main__":
    front, address, file = sys.argv[1:]
    answers = asyncio.run(FRONTS[front](address, Path(file).read_bytes()))
    print(json.dumps(answers))
