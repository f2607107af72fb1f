"""Measures the bytes that calls and their answers have on the network.

    python -m benchmarks.capacity.call_bytes --models models --model mnist --photos DIR

A client of gRPC calls a server through a relay that counts: all of HTTP/2 is in it, TCP and IP are
not. The newest version of a model of digits is asked, and of one of photographs.
"""

import argparse
import contextlib
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import grpc
import numpy as np

from benchmarks.harness.bundles import Bundle
from benchmarks.harness.command import (
    add_models_option,
    add_photos_option,
    execute,
    new_parser,
    whole,
)
from benchmarks.harness.pictures import pictures
from benchmarks.harness.report import heading, machine
from benchmarks.harness.servers import ours
from convserve_protos import classifier_pb2 as pb
from convserve_protos.classifier_pb2_grpc import ClassifierStub

_PACKAGES = ("convserve", "grpcio", "pygrpc-native")
_CHUNK = 65536
_WAIT_S = 60.0
#: Before the counted ones: HTTP/2's first frames, and header fields that later calls only refer to.
_FIRST = 10
_IMAGES = 64


class Relay:
    """Passes connections on to an address, and counts what passes.

    Attributes:
        sent: bytes that clients have sent.
        received: bytes that they have received.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.sent = self.received = 0
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def close(self) -> None:
        """Ends, once the clients have closed their connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(_WAIT_S)

    def _start(self, run: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # close() ends this
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._start(self._pump, client, server, "sent")
                self._start(self._pump, server, client, "received")

    def _pump(self, source: socket.socket, target: socket.socket, counter: str) -> None:
        with contextlib.suppress(OSError):  # one end has gone
            while data := source.recv(_CHUNK):
                # Each counter has one thread for each connection, and there is one connection.
                setattr(self, counter, getattr(self, counter) + len(data))
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@dataclass(frozen=True)
class Counted:
    """What calls of a kind have on the network.

    Attributes:
        kind: of the calls.
        calls: that were counted.
        payload: bytes of pixels or files in a call, in the mean.
        sent: bytes of a call.
        received: bytes of its answer.
    """

    kind: str
    calls: int
    payload: float
    sent: float
    received: float


def counted(relay: Relay, kind: str, requests: Sequence[pb.ClassifyRequest]) -> Counted:
    """Makes calls one after the other, over a connection of their own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(relay.address, options=options) as channel:
        stub = ClassifierStub(channel)
        for request in requests[:_FIRST]:
            stub.Classify(request, timeout=_WAIT_S)
        sent, received = relay.sent, relay.received
        for request in requests:
            stub.Classify(request, timeout=_WAIT_S)
        sent, received = relay.sent - sent, relay.received - received
    payloads = [
        len(request.pixels.data) + sum(map(len, request.encoded.images)) for request in requests
    ]
    count = len(requests)
    return Counted(kind, count, sum(payloads) / count, sent / count, received / count)


def kinds(
    digits: Bundle, photos: Bundle, files: Sequence[bytes], calls: int
) -> Iterator[tuple[str, list[pb.ClassifyRequest]]]:
    """Yields kinds of calls, each with its requests."""
    random = np.random.default_rng(0)
    height, width, channels = digits.shape
    for images in (1, _IMAGES):
        data = random.integers(0, 256, (images, height, width, channels), np.uint8).tobytes()
        pixels = pb.Pixels(count=images, height=height, width=width, channels=channels, data=data)
        request = pb.ClassifyRequest(model=digits.model, pixels=pixels)
        yield f"{images} x {height} x {width} pixels", [request] * calls
    yield (
        "1 photograph",
        [
            pb.ClassifyRequest(model=photos.model, encoded=pb.EncodedImages(images=[one]))
            for one in files
        ],
    )


def markdown(rows: Sequence[Counted]) -> str:
    """Returns the table."""
    lines = [
        "| call | calls | bytes of images | bytes of a call | bytes of its answer |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row.kind} | {row.calls} | {row.payload:.0f} | {row.sent:.0f} | {row.received:.0f} |"
        for row in rows
    ]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.capacity.call_bytes", __doc__)
    add_models_option(result)
    result.add_argument(
        "--model", default="mnist", metavar="NAME", help="model of digits [default: mnist]"
    )
    add_photos_option(result)
    result.add_argument(
        "--calls", type=whole(_FIRST), default=1000, metavar="N",
        help="of each kind [default: 1000]",
    )  # fmt: skip
    return result


def run(arguments: argparse.Namespace) -> None:
    """Starts a server and a relay, calls, prints.

    Raises:
        BenchmarkError: see Bundle.newest, Bundle.newest_of_photos and pictures.
    """
    digits = Bundle.newest(arguments.models, arguments.model)
    photos = Bundle.newest_of_photos(arguments.models, None)
    given = pictures(arguments.photos, arguments.calls)
    _, native = ours(digits.file)
    with native as server:
        relay = Relay(server.address)
        rows = [
            counted(relay, kind, requests)
            for kind, requests in kinds(digits, photos, given.files, arguments.calls)
        ]
        relay.close()
    labels = f"{len(photos.manifest.labels)} classes"
    details = (f"{digits.model}/{digits.version}", f"photographs: {given.about}, {labels}")
    print(heading(machine(_PACKAGES), "everything", details), markdown(rows), sep="\n\n")


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))
