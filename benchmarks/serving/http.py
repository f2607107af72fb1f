"""Measures what the same pixels, and the same picture, cost over HTTP and over gRPC.

    python -m benchmarks.serving.http --models models --model mnist

One server is asked by convserve.v1.Classify, and by Open Inference over HTTP/1.1 with bytes and
with JSON; then with a picture as a file, by Classify and by POST. The ways take turns, each round
begins with another one, and answers are checked at first and after every measurement.
Needs h2load. The table goes to standard output as Markdown, progress to standard error.
"""

import argparse
import http.client
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import grpc
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.answers import Call, Questions, WrongAnswer, compare
from benchmarks.harness.bundles import Bundle
from benchmarks.harness.client import WireQuestions
from benchmarks.harness.command import add_run_options, add_server_options, execute, new_parser
from benchmarks.harness.meter import Meter, Subject, choose_driver, measurements
from benchmarks.harness.ports import free_port
from benchmarks.harness.processes import ServerProcess
from benchmarks.harness.report import heading_of_load, machine, write_json
from benchmarks.harness.servers import ours
from benchmarks.harness.table import Cell, markdown, rows
from benchmarks.harness.wire_formats import ConvserveV1, OpenInferenceBinary, OpenInferenceJson
from convserve_protos import classifier_pb2 as pb
from convserve_protos import classifier_pb2_grpc

_PACKAGES = ("convserve", "grpcio", "httptools", "onnxruntime", "protobuf", "pygrpc-native")
_CELLS = (Cell(1, 1), Cell(16, 1), Cell(64, 1))
_PICTURE = Path(__file__).parents[2] / "examples/seven.png"
_DEADLINE_S = 30.0


class HttpPort(ServerProcess):
    """The other port of a server that is started by itself.

    Args:
        server: whose port it is.
        port: for HTTP.
    """

    def __init__(self, server: ServerProcess, port: int) -> None:
        self.name = server.name
        self.address = f"127.0.0.1:{port}"
        self._server = server

    def __enter__(self) -> Self:
        """Does nothing: the server is there."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Does nothing: the server ends by itself."""

    def cpu_s(self) -> float:
        """See ServerProcess.cpu_s."""
        return self._server.cpu_s()

    def output(self) -> str:
        """See ServerProcess.output."""
        return self._server.output()


class Picture(NamedTuple):
    """See RequestSet: a picture of a digit as a file.

    Attributes:
        model: that is asked.
        rows: float32 [1, K], what Classify answers.
        over_http: whether by POST, else by Classify.
    """

    model: str
    rows: NDArray[np.float32]
    over_http: bool

    def call(self, first: int, count: int) -> Call:
        """See RequestSet.call."""
        assert (first, count) == (0, 1), "there is one picture"
        least = 4 * self.rows.size
        if self.over_http:
            return Call(
                _PICTURE.read_bytes(), least, f"/v1/models/{self.model}:classify", "image/png"
            )
        return Call(_request(self.model).SerializeToString(), least)

    def check(self, address: str) -> None:
        """See RequestSet.check."""
        compare(
            self._asked(address) if self.over_http else classified(address, self.model), self.rows
        )

    def _asked(self, address: str) -> NDArray[np.float32]:
        connection = http.client.HTTPConnection(address, timeout=_DEADLINE_S)
        try:
            connection.request("POST", self.call(0, 1).path, self.call(0, 1).body)
            answer = json.loads(connection.getresponse().read())
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise WrongAnswer(repr(error)) from error
        finally:
            connection.close()
        if "results" not in answer:
            raise WrongAnswer(str(answer))
        by_label = {one["label"]: one["probability"] for one in answer["results"][0]["classes"]}
        return np.array([[by_label[label] for label in sorted(by_label)]], np.float32)


def _request(model: str) -> pb.ClassifyRequest:
    images = pb.EncodedImages(images=[_PICTURE.read_bytes()])
    return pb.ClassifyRequest(model=model, encoded=images)


def classified(address: str, model: str) -> NDArray[np.float32]:
    """Returns what Classify answers about the picture, float32 [1, K] by the names of the labels.

    Raises:
        WrongAnswer: if it fails.
    """
    with grpc.insecure_channel(address) as channel:
        stub = classifier_pb2_grpc.ClassifierStub(channel)
        try:
            reply = stub.Classify(_request(model), timeout=_DEADLINE_S)
        except grpc.RpcError as error:
            raise WrongAnswer(f"{error.code().name}: {error.details()}") from error
    order = sorted(range(len(reply.labels)), key=lambda index: reply.labels[index])
    return np.array([reply.results[0].prediction.probabilities], np.float32)[:, order]


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.serving.http", __doc__)
    add_server_options(result)
    result.add_argument(
        "--model", default="mnist", metavar="NAME",
        help="of digits, of which the newest version is served [default: mnist]",
    )  # fmt: skip
    add_run_options(result, rounds=5, measured="way and cell")
    return result


def subjects_of(
    server: ServerProcess, port: int, bundle: Bundle
) -> tuple[Sequence[Subject], Sequence[Subject]]:
    """Returns the ways to ask with pixels, and with a picture; the baseline first.

    Args:
        server: that is started, or the first of the ways starts it.
        port: of it, for HTTP.
        bundle: that is served.
    """
    over_http = HttpPort(server, port)
    asked = Questions.of_pixels(bundle, 8)
    infer = f"/v2/models/{bundle.model}/infer"
    pixels = (
        Subject(server, WireQuestions.of(ConvserveV1(bundle.model), asked), "gRPC, Classify"),
        Subject(over_http, WireQuestions.of(OpenInferenceBinary(infer), asked), "HTTP, v2, bytes"),
        Subject(over_http, WireQuestions.of(OpenInferenceJson(infer), asked), "HTTP, v2, JSON"),
    )
    row = classified(server.address, bundle.model)
    pictures = (
        Subject(server, Picture(bundle.model, row, over_http=False), "gRPC, Classify, PNG"),
        Subject(over_http, Picture(bundle.model, row, over_http=True), "HTTP, classify, PNG"),
    )
    return pixels, pictures


def run(arguments: argparse.Namespace) -> None:
    """Start the server, measure, stop it, print.

    Raises:
        BenchmarkError: see Meter.measure, Bundle.newest and choose_driver.
    """
    bundle = Bundle.newest(arguments.models, arguments.model)
    meter = Meter(choose_driver("h2load"), arguments.connections, arguments.seconds)
    on = machine(_PACKAGES)
    port = free_port()
    *_, server = ours(bundle.file, f"{arguments.flags} --http-port {port}")
    measured, table = [], []
    with server:
        for group in subjects_of(server, port, bundle):
            found = list(measurements(meter, group, _CELLS, arguments.rounds))
            measured += found
            table += rows(found, group[0].name)
    about = meter.about(bundle, arguments.rounds)
    print(heading_of_load(on, about), markdown(table), sep="\n\n")
    write_json(arguments.json, on, about, measurements=measured, rows=table)


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))
