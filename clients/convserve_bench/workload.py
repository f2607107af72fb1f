"""What is sent, made ready to be sent, after an ordinary client has seen it answered rightly."""

from __future__ import annotations

import argparse
import math
import socket
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata

import numpy as np

from convserve.address import endpoints
from convserve.caller_key import CallerKey
from convserve.calls import ClassifyOptions, Images, VersionChoice
from convserve.client import Client
from convserve.command.connection_options import key_of, tls_of
from convserve.command.file_probe import FileProbe
from convserve.command.retrying_caller import RetryingCaller
from convserve.errors import BadImage, InvalidRequest, ServerUnavailable, UnexpectedReply
from convserve.model_choice import choose_model
from convserve.models import ModelInfo
from convserve.results import Classification
from convserve.tls import Tls
from convserve.unreachable import cannot_connect
from convserve_bench.generator import Calls
from convserve_bench.header_blocks import Field
from convserve_bench.images import Material, material
from convserve_bench.tls_transport import ServerTls
from convserve_bench.transport import Address
from convserve_protos import classifier_pb2

_METHOD = b"/convserve.v1.Classifier/Classify"
#: The largest number that gRPC accepts as a timeout has 8 digits.
_MOST_TIMEOUT = 99_999_999
_SUM_WITHIN = 1e-3


@dataclass(frozen=True)
class Workload:
    """What the load consists of.

    Attributes:
        calls: What is sent, and to where.
        model: Name and version of the model that answers: "mnist/1".
        what: The images: "random pixels".
        images: In each call.
        request_bytes: Mean size of a message.
        least_reply_bytes: Size of the smallest right answer.
    """

    calls: Calls
    model: str
    what: str
    images: int
    request_bytes: float
    least_reply_bytes: int


def prepare(arguments: argparse.Namespace) -> Workload:
    """Asks for the model, makes the images, and has each call answered once.

    Raises:
        ConvserveError: The server gave no answer, or a wrong one.
    """
    host, port = _address(arguments.server)
    tls, key = tls_of(arguments), key_of(arguments)
    with closing(RetryingCaller.of(arguments)) as caller:
        model = caller.model(
            arguments.model,
            arguments.model_version,
            lambda loaded: _chosen(arguments.pictures, loaded, arguments.model_version),
        )
        sent = material(
            model,
            arguments.images,
            pictures=arguments.pictures,
            pixels=arguments.pixels,
            seed=arguments.seed,
        )
        options = ClassifyOptions(model.name, arguments.model_version, None)
        for images in sent.calls:
            _check(caller, options, model, sent, images)
    messages = [options.request(images).SerializeToString() for images in sent.calls]
    return Workload(
        Calls(
            _resolved(arguments.server, host, port, arguments.timeout),
            _fields(arguments.server, arguments.timeout, tls, key),
            [b"\0" + len(message).to_bytes(4, "big") + message for message in messages],
            None if tls is None else ServerTls(tls.context(), tls.server_name or host),
        ),
        f"{model.name}/{model.version}",
        sent.what,
        arguments.images,
        float(np.mean([len(message) for message in messages])),
        _least_reply_bytes(model, arguments.images),
    )


def _chosen(pictures: str | None, models: Sequence[ModelInfo], version: VersionChoice) -> str:
    """Returns the name of the model that is meant where none is named.

    Raises:
        ConvserveError: As model_choice.choose_model.
    """
    if pictures is None:  # Made for whichever model is asked.
        return choose_model(models, version, lambda _: True, "made-up images")
    return FileProbe([pictures]).choose_model(models, version)


def _check(
    caller: RetryingCaller,
    options: ClassifyOptions,
    model: ModelInfo,
    sent: Material,
    images: Images,
) -> None:
    name, number, label = options.model, options.number, options.label

    def ask(client: Client, timeout_s: float) -> Classification:
        if isinstance(images, tuple):
            return client.classify_images(
                images, model=name, version=number, label=label, timeout=timeout_s
            )
        return client.classify(images, model=name, version=number, label=label, timeout=timeout_s)

    try:
        answer = caller.ask(ask)
        failures = dict(answer.errors)
    except BadImage as error:  # Of the only image of a call.
        failures = {0: error}
    for index, failure in failures.items():
        file = sent.names.get(images[index], "a made-up picture")
        raise InvalidRequest.of("--pictures", f"{file}: {failure}") from failure
    if answer.labels != model.labels or len(answer) != len(images):
        raise UnexpectedReply(
            f"{len(answer)} answers with labels {answer.labels}; expected {len(images)} with"
            f" {model.labels}"
        )
    sums = answer.probabilities.sum(axis=1)
    if not np.allclose(sums, 1, atol=_SUM_WITHIN):
        raise UnexpectedReply(f"the probabilities of an image sum to {sums.min():g}, not to 1")


def _least_reply_bytes(model: ModelInfo, images: int) -> int:
    """Returns the size of the right answer without what may vary: timings and version."""
    reply = classifier_pb2.ClassifyResponse(model=model.name, labels=model.labels)
    for _ in range(images):
        reply.results.add().prediction.probabilities.extend([1.0] * len(model.labels))
    return reply.ByteSize()


def _fields(
    server: str, timeout_s: float, tls: Tls | None = None, key: CallerKey | None = None
) -> Sequence[Field]:
    units = (("u", 1e6), ("m", 1e3), ("S", 1.0))
    timeouts = ((math.ceil(timeout_s * scale), unit) for unit, scale in units)
    number, unit = next(each for each in timeouts if each[0] <= _MOST_TIMEOUT)
    return [
        (b":method", b"POST"),
        (b":scheme", b"http" if tls is None else b"https"),
        (b":path", _METHOD),
        (b":authority", server.encode()),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"user-agent", f"convserve-bench/{metadata.version('convserve')}".encode()),
        (b"grpc-timeout", f"{number}{unit}".encode()),
        *((name.encode(), value.encode()) for name, value in (key.metadata() if key else ())),
    ]


def _address(server: str) -> tuple[str, int]:
    found = endpoints(server)
    if len(found) != 1 or not server.startswith((found[0][0], "[")):
        raise InvalidRequest.expected("server", "HOST:PORT for bench", repr(server))
    return found[0]


def _resolved(server: str, host: str, port: int, timeout_s: float) -> Address:
    """Returns the first address behind a name that can be connected to."""
    try:
        with socket.create_connection((host, port), timeout_s) as connected:
            return Address(connected.family, connected.getpeername())
    except OSError as error:
        message = cannot_connect(server, error.strerror or str(error))
        raise ServerUnavailable(message) from error
