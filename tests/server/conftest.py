"""A worker in this process, with an engine that a test can hold, behind either front."""

import contextlib
import dataclasses
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import grpc
import numpy as np
import pytest
from google.protobuf import json_format
from numpy.typing import NDArray

from convserve_bundle.contract import MANIFEST_KEY
from convserve_bundle.errors import BundleError
from convserve_bundle.held_model import Model
from convserve_protos import classifier_pb2 as pb
from convserve_protos.bundle_pb2 import Manifest
from convserve_protos.classifier_pb2_grpc import ClassifierStub
from convserve_server.core.classifier import Classifier
from convserve_server.engines import openvino
from convserve_server.engines.base import NOT_MEASURED, Loaded, Pixels, Probabilities
from convserve_server.engines.bundles import load_bundle, load_model
from convserve_server.engines.loader import EngineOptions, metadata_of
from convserve_server.engines.output_check import probes
from convserve_server.host.guards import new_field
from convserve_server.host.resources import plan_resources
from convserve_server.host.spare_cpus import SpareCpus
from convserve_server.process import serving
from convserve_server.process.serving import (
    Worker,
    make_http_transport,
    make_traces,
    make_transport,
)
from convserve_server.protocols.base import Call, Interceptor, Service, UnaryHandler
from convserve_server.protocols.key_check import KeyCheck
from convserve_server.protocols.router import Router
from convserve_server.settings.kinds import Value
from convserve_server.settings.settings import make_settings
from convserve_server.transports import native
from convserve_server.transports.base import Transport
from convserve_server.transports.http import HttpTransport
from tests.bundles import (
    CLASSES,
    COLOURS,
    PHOTO_SHAPE,
    SHAPE,
    digit_of,
    manifest,
    photo_manifest,
    several_manifest,
    write_bundle,
    write_photo_bundle,
    write_several_bundle,
)
from tests.recorder import Recorder
from tests.server.guard_thread import GuardThread

WAIT_S = 60.0
#: A deadline that a call is to miss, and long enough for it to reach the server before.
SOON_S = 1.0


class CallWatch(Interceptor):
    """Has a function see every unary call of a method.

    Args:
        method: "/package.Service/Method".
        seen: called with each, before its handler.
    """

    def __init__(self, method: str, seen: Callable[[Call], object]) -> None:
        self._method = method
        self._seen = seen

    def unary(self, method: str, handler: UnaryHandler) -> UnaryHandler:
        def watched(call: Call) -> None:
            self._seen(call)
            handler(call)

        return watched if method == self._method else handler


class HeldEngine:
    """Answers like the model of tests.bundles; holds each batch while the gate is closed."""

    provider = "HeldExecutionProvider"
    image_shape = SHAPE
    classes = CLASSES
    max_batch = 64
    parallel = 1
    spare: SpareCpus | None = None

    def __init__(self) -> None:
        self.metadata = {"convserve.manifest": json_format.MessageToJson(self.manifest())}
        self.gate = threading.Event()
        self.gate.set()
        #: Every batch, and the number of its images as the engine takes it.
        self.seen = Recorder[Pixels]()
        self.entered: queue.Queue[int] = queue.Queue()
        self.fault: Exception | None = None

    def warm_up(self, batch_s: Mapping[int, float] = NOT_MEASURED) -> Mapping[int, float]:
        return batch_s

    def run(self, images: Sequence[Pixels]) -> Probabilities:
        batch = np.concatenate(images)
        # When it is loaded its outputs are looked at; what else comes are calls.
        if not np.array_equal(batch, probes(self.image_shape)):
            self.seen.append(batch)
            self.entered.put(len(batch))
            assert self.gate.wait(WAIT_S)
            if self.fault is not None:
                raise self.fault
        return self.rows_of(batch)

    def rows_of(self, batch: Pixels) -> Probabilities:
        """What the model says: float32 [N, K]."""
        exponentials = np.exp(20.0 * self.strengths(batch).astype(np.float32) / 255)
        rows: Probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
        return rows

    def manifest(self) -> Manifest:
        return manifest()

    def strengths(self, batch: Pixels) -> NDArray[np.generic]:
        """What speaks for each class, 0 to 255: [N, K]."""
        return batch[:, 0, :CLASSES, 0]

    def hold(self) -> None:
        """Let the engine take batches, but finish none."""
        self.gate.clear()

    def release(self) -> None:
        self.gate.set()

    def wait_entered(self) -> int:
        """Wait until the engine has taken a batch; returns its size."""
        return self.entered.get(timeout=WAIT_S)


class HeldPhotoEngine(HeldEngine):
    """The same for photographs: the class is the strongest colour."""

    image_shape = PHOTO_SHAPE
    classes = len(COLOURS)

    def manifest(self) -> Manifest:
        return photo_manifest()

    def strengths(self, batch: Pixels) -> NDArray[np.generic]:
        means: NDArray[np.generic] = batch.mean(axis=(1, 2))
        return means


class HeldSeveralEngine(HeldPhotoEngine):
    """The same for photographs that have each colour that is strong enough."""

    def manifest(self) -> Manifest:
        return several_manifest("tags")

    def rows_of(self, batch: Pixels) -> Probabilities:
        logits = 20.0 * self.strengths(batch).astype(np.float32) / 255 - 10
        rows: Probabilities = (1 / (1 + np.exp(-logits))).astype(np.float32)
        return rows


class PortKeeper:
    """A transport that remembers its port, which a Worker does not report."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.name = transport.name
        self.port = 0

    def start(self, router: Router) -> int:
        self.port = self._transport.start(router)
        return self.port

    def flush(self, timeout_s: float) -> None:
        self._transport.flush(timeout_s)

    def close(self) -> None:
        self._transport.close()


@dataclasses.dataclass
class Served:
    """A worker that serves "mnist", "colours" or "tags" with a HeldEngine, and more."""

    worker: Worker
    engine: HeldEngine
    address: str
    models: Path
    channel: grpc.Channel
    stub: ClassifierStub
    #: Of HTTP, if it is served.
    http: HttpTransport | None
    http_port: int
    #: Before a front that is "guarded".
    guard: GuardThread | None = None

    def classify(self, request: pb.ClassifyRequest, timeout_s: float | None = WAIT_S) -> Any:
        """Send a request; returns the future of the response at once."""
        return self.stub.Classify.future(request, timeout=timeout_s)


class Serve(Protocol):
    def __call__(
        self,
        front: str = "grpcio",
        *,
        photos: bool = False,
        several: bool = False,
        interceptors: Sequence[Interceptor] = (),
        services: Sequence[Callable[[Classifier], Service]] = (),
        http: bool = False,
        by_model: Mapping[str, Mapping[str, Value]] | None = None,
        key_check: KeyCheck | None = None,
        **settings: object,
    ) -> Served: ...


def request_for(*classes: int, **fields: object) -> pb.ClassifyRequest:
    """A request with one image for each class."""
    height, width, channels = SHAPE
    data = b"".join(digit_of(class_).tobytes() for class_ in classes)
    pixels = pb.Pixels(count=len(classes), height=height, width=width, channels=channels, data=data)
    return pb.ClassifyRequest(**{"model": "mnist", "pixels": pixels, **fields})  # type: ignore[arg-type]


def answers(response: pb.ClassifyResponse) -> list[int]:
    """The most probable class of each image."""
    return [int(np.argmax(result.prediction.probabilities)) for result in response.results]


def load(path: Model, engine: HeldEngine) -> Loaded:
    """Load ONNX files that are not bundles with their own engines, all else with the held one."""
    with contextlib.suppress(BundleError):
        if MANIFEST_KEY not in metadata_of(path):
            return load_model(path, EngineOptions("cpu", max_batch=8))
    return load_bundle(path, lambda _: engine)


@pytest.fixture(autouse=True)
def cpu_without_matrix_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same engines and log lines on every machine; a test of matrix units makes them up."""
    monkeypatch.setattr(openvino, "cpu_flags", frozenset[str])


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start workers; all are released and stopped at the end."""
    ends: list[Callable[[], object]] = []

    def start(
        front: str = "grpcio",
        *,
        photos: bool = False,
        several: bool = False,
        interceptors: Sequence[Interceptor] = (),
        services: Sequence[Callable[[Classifier], Service]] = (),
        http: bool = False,
        by_model: Mapping[str, Mapping[str, Value]] | None = None,
        key_check: KeyCheck | None = None,
        **settings: object,
    ) -> Served:
        models = tmp_path / "models"
        if not models.exists():
            write = write_several_bundle if several else write_photo_bundle
            (write if photos or several else write_bundle)(models)
        guarded = front == "guarded"
        if guarded:
            front = "native"
        given = {"models": str(models), "front": front, "port": 0, "grace_s": WAIT_S, **settings}
        chosen = plan_resources(make_settings(by_model, **given), cpus=1).settings  # type: ignore[arg-type]
        held = HeldSeveralEngine if several else HeldPhotoEngine
        engine = held() if photos or several else HeldEngine()
        field = new_field() if guarded else ""
        keeper = PortKeeper(make_transport(chosen, 0, field))
        http_transports = [make_http_transport(chosen, 0, key_check)] if http else []
        http_keepers = [PortKeeper(each) for each in http_transports]
        worker = Worker(
            chosen,
            [keeper, *http_keepers],
            lambda _, path, __: load(path, engine),
            interceptors=[*interceptors, *([key_check] if key_check else [])],
            services=services,
            traces=make_traces(chosen, 1),
        )
        worker.start()
        port = keeper.port
        before: GuardThread | None = None
        if guarded:
            before = GuardThread(chosen, field, keeper.port)
            port = before.port
            ends.append(before.close)
        channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        stopped: list[int] = []
        stop = worker.stop

        def stop_once() -> int:
            if not stopped:
                stopped.append(stop())
            return stopped[0]

        worker.stop = stop_once  # type: ignore[method-assign]
        ends.extend([channel.close, worker.close, stop_once, engine.release])
        return Served(
            worker,
            engine,
            f"127.0.0.1:{port}",
            models,
            channel,
            ClassifierStub(channel),
            http_transports[0] if http else None,
            http_keepers[0].port if http else 0,
            before,
        )

    yield start
    # After a test nobody is on the way to a worker, and nobody reads its last answers.
    monkeypatch.setattr(serving, "_QUIET_S", 0.0)
    monkeypatch.setattr(native, "_SETTLE_S", 0.0)
    for end in reversed(ends):
        end()


@pytest.fixture(params=["grpcio", "native"])
def front(request: pytest.FixtureRequest) -> str:
    """Every test that takes it runs on both fronts."""
    name: str = request.param
    return name
