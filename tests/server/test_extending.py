"""A protocol, a transport and an observer of one file each, added as docs/extending.md says."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from convserve_protos import classifier_pb2 as pb
from convserve_server.engines.bundles import load_bundle
from convserve_server.host.resources import plan_resources
from convserve_server.process.serving import Worker, make_transport
from convserve_server.protocols.base import Failure
from convserve_server.protocols.convserve_v1.service import CLASSIFY
from convserve_server.settings.settings import make_settings
from convserve_server.settings.sources import load
from convserve_server.telemetry.observer import Observer, Observers
from tests.bundles import SHAPE, digit_of, write_bundle
from tests.server.conftest import WAIT_S, HeldEngine, Serve, answers, request_for
from tests.server.echo_protocol import SHAPES, SHAPES_STREAM, Echo
from tests.server.in_process_transport import InProcessTransport


class Counts(Observer):
    """Counts the events that it wants to know of."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def queued(self, model: str, images: int) -> None:
        self.counts[f"queued {model}"] += images

    def refused(self, method: str, reason: str) -> None:
        self.counts[f"refused {method} {reason}"] += 1

    def finished(self, method: str, model: str, code: int, reason: str, seconds: float, /) -> None:
        assert seconds > 0
        self.counts[f"finished {method} {reason}"] += 1

    def batch(
        self,
        model: str,
        images: int,
        seconds: float,
        arrived: Sequence[float],
        whole_s: float,
        ended: float,
        /,
    ) -> None:
        assert 0 < seconds < whole_s
        self.counts[f"run {model}"] += images


@pytest.fixture
def counts() -> Counts:
    return Counts()


@pytest.fixture
def transport(tmp_path: Path, counts: Counts) -> Iterator[InProcessTransport]:
    """The transport of a worker that also has grpcio's, and serves "mnist"."""
    models = tmp_path / "models"
    write_bundle(models)
    settings = plan_resources(
        make_settings(models=str(models), front="grpcio", port=0), cpus=1
    ).settings
    in_process = InProcessTransport()
    worker = Worker(
        settings,
        [in_process, make_transport(settings, 0)],
        lambda _, path, __: load_bundle(path, lambda _: HeldEngine()),
        services=[Echo],
        observer=Observers([Observer(), counts]),
    )
    worker.start()
    yield in_process
    worker.stop()
    worker.close()


def images(count: int) -> bytes:
    return b"mnist\0" + b"".join(digit_of(number).tobytes() for number in range(count))


def test_added_protocol_answers_over_an_added_transport(transport: InProcessTransport) -> None:
    answer = transport.ask(SHAPES, images(3)).result(WAIT_S)
    assert isinstance(answer, bytes)
    assert json.loads(answer) == {"images": [3, *SHAPE], "rows": [3, 10]}


def test_streaming_method_of_an_added_protocol(transport: InProcessTransport) -> None:
    replies = transport.ask_stream(SHAPES_STREAM, [b"mnist", b"mnist"])
    assert [json.loads(reply) for reply in replies] == [list(SHAPE)] * 2


def test_errors_are_the_added_protocols_own(transport: InProcessTransport) -> None:
    failure = transport.ask(SHAPES, b"mnist\0abc").result(WAIT_S)
    assert failure == Failure(
        400, "data: expected a multiple of 784 bytes, got 3", (), "INVALID_REQUEST"
    )


def test_our_own_protocol_answers_over_an_added_transport(transport: InProcessTransport) -> None:
    answer = transport.ask(CLASSIFY, request_for(4, 2).SerializeToString()).result(WAIT_S)
    assert isinstance(answer, bytes)
    assert answers(pb.ClassifyResponse.FromString(answer)) == [4, 2]


def test_observer_sees_what_the_core_does(transport: InProcessTransport, counts: Counts) -> None:
    transport.ask(SHAPES, images(3)).result(WAIT_S)
    transport.ask(SHAPES, images(0)).result(WAIT_S)
    transport.ask(CLASSIFY, pb.ClassifyRequest(model="none").SerializeToString()).result(WAIT_S)
    assert counts.counts == {
        "queued mnist/1": 3,
        "run mnist/1": 3,
        f"refused {SHAPES} INVALID_REQUEST": 1,
        f"finished {SHAPES} ": 1,
        f"finished {SHAPES} INVALID_REQUEST": 1,
        f"refused {CLASSIFY} NOT_FOUND": 1,
        f"finished {CLASSIFY} NOT_FOUND": 1,
    }


def test_added_protocol_answers_over_our_own_transports(serve: Serve, front: str) -> None:
    served = serve(front, services=[Echo])
    ask: Any = served.channel.unary_unary(SHAPES)
    assert json.loads(ask(images(2), timeout=WAIT_S))["rows"] == [2, 10]
    # A status of HTTP is none of gRPC.
    with pytest.raises(grpc.RpcError) as caught:
        ask(b"mnist\0abc", timeout=WAIT_S)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.UNKNOWN
    assert error.details() == "data: expected a multiple of 784 bytes, got 3"


def test_model_has_the_maximum_batch_size_of_its_own_table(tmp_path: Path) -> None:
    file = tmp_path / "convserve.toml"
    models = tmp_path / "models"
    for name in ("mnist", "other"):
        write_bundle(models, name=name)
    file.write_text(
        f'[models]\nfolder = "{models}"\n[models.mnist]\nmax_batch = 2\nmax_queue = 5\n'
    )
    settings = plan_resources(load(["--config", str(file)]).settings, cpus=1).settings
    worker = Worker(settings, [], lambda _, path, __: load_bundle(path, lambda _: HeldEngine()))
    worker.start()
    try:
        batchers = [worker.repository.get(name, None).batcher for name in ("mnist", "other")]
        assert [one.max_batch for one in batchers] == [2, HeldEngine.max_batch]
        assert batchers[0].max_queue == 5
    finally:
        worker.close()
