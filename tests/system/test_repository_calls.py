"""Open Inference over several workers: each answers for all of them."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from convserve import Client, ConvserveError
from convserve_protos import open_inference_pb2 as pb
from tests.bundles import digit_of, write_bundle
from tests.system.conftest import WAIT_S, StartServer
from tests.system.test_administration import calling
from tests.system.test_reload import Configured
from tests.system.test_supervision import until

#: So many connections, that with each of two workers there is one: the kernel spreads them.
CONNECTIONS = 16
EXPLICIT = '[models.mnist]\ncontrol = "explicit"\n'
ALLOWED = '[listen]\nrepository_calls = "on"\n'


@contextmanager
def repository(address: str) -> Iterator[Callable[..., Any]]:
    """Methods of Open Inference, over a connection of their own: name, request, response."""
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:

        def ask(method: str, **fields: Any) -> Any:
            call: Any = channel.unary_unary(
                f"/inference.GRPCInferenceService/{method}",
                request_serializer=getattr(pb, f"{method}Request").SerializeToString,
                response_deserializer=getattr(pb, f"{method}Response").FromString,
            )
            return call.future(
                getattr(pb, f"{method}Request")(**fields), timeout=WAIT_S, wait_for_ready=True
            )

        yield ask


def counted(address: str) -> Any:
    """The statistics of mnist, as whichever worker answers has them."""
    with repository(address) as ask:
        (found,) = ask("ModelStatistics", name="mnist").result().model_stats
        return found


def test_counts_are_those_of_all_workers_whoever_is_asked_and_whoever_dies(
    start_server: StartServer, tmp_path: Path
) -> None:
    one = Configured(start_server, tmp_path / "settings.toml", "", "--workers", "2")
    sent, failed = 0, 0

    def send(address: str) -> None:
        """Calls over new connections, of which some are refused."""
        nonlocal sent, failed
        for number in range(CONNECTIONS):
            with Client(address) as client:
                for _ in range(3):
                    client.classify([digit_of(number % 10)] * 2)
                    sent += 1
                with pytest.raises(ConvserveError):
                    client.classify(np.zeros((2, 2, 1), np.uint8))

    def check() -> None:
        # A call is counted after its answer.
        until(lambda: counted(one.address).inference_stats.success.count >= sent, "all counted")
        for _ in range(4):
            found = counted(one.address)
            stats = found.inference_stats
            assert (stats.success.count, found.inference_count) == (sent, 2 * sent)
            assert stats.queue.count == stats.compute_infer.count == sent
            assert sum(each.compute_infer.count for each in found.batch_stats) == (
                found.execution_count
            )

    check()
    send(one.address)
    check()
    killed = set(one.server.worker_pids())
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(set(one.server.worker_pids()) - killed) == 2, "successors")
    check()
    send(one.address)
    check()
    before = set(one.server.worker_pids())
    assert "restarting" in one.reload("[batching]\nmax_queue = 500\n")
    until(lambda: len(set(one.server.worker_pids()) - before) == 2, "the next workers")
    until(lambda: not set(one.server.worker_pids()) & before, "the end of those before")
    check()
    send(one.address)
    check()
    assert one.server.terminate() == 0


def test_models_are_loaded_and_unloaded_by_calls_without_a_failed_one(
    start_server: StartServer, models: Path, tmp_path: Path
) -> None:
    one = Configured(
        start_server, tmp_path / "settings.toml", EXPLICIT + ALLOWED,
        *("--workers", "2", "--scan-s", "0.1"),
    )  # fmt: skip
    with ExitStack() as stack:
        asks = [stack.enter_context(repository(one.address)) for _ in range(CONNECTIONS)]

        def states() -> list[dict[str, str]]:
            found = [ask("RepositoryIndex") for ask in asks]
            return [
                {each.version: each.state for each in answer.result().models} for answer in found
            ]

        def all_ask(method: str) -> None:
            """Over each connection at once, whichever worker it is with."""
            for answer in [ask(method, model_name="mnist") for ask in asks]:
                answer.result()

        unloaded, loaded = "UNAVAILABLE", "READY"
        assert states() == [{"1": unloaded}] * CONNECTIONS
        all_ask("RepositoryModelLoad")
        assert states() == [{"1": loaded}] * CONNECTIONS
        with calling(one.address) as callers:
            callers.wait()
            write_bundle(models, version=2)
            until(lambda: states() == [{"2": unloaded, "1": loaded}] * CONNECTIONS, "version 2")
            all_ask("RepositoryModelLoad")
            # Every call that begins now is answered by it, in each worker.
            callers.wait()
            assert callers.seen == [1, 2]
        assert states() == [{"2": loaded, "1": loaded}] * CONNECTIONS
        asks[0]("RepositoryModelUnload", model_name="mnist").result()
        # No call that begins now is answered by it; those that had begun keep it for a moment.
        until(lambda: states() == [{"2": unloaded, "1": unloaded}] * CONNECTIONS, "its end")
        with pytest.raises(grpc.RpcError) as caught:
            asks[1]("RepositoryModelUnload", model_name="mnist").result()
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert one.server.terminate() == 0


def test_calls_change_models_only_where_the_settings_allow_it(
    start_server: StartServer, models: Path, tmp_path: Path
) -> None:
    write_bundle(models, name="cats")
    one = Configured(start_server, tmp_path / "settings.toml", EXPLICIT, "--workers", "2")

    def outcome(method: str, name: str) -> tuple[str, str]:
        with repository(one.address) as ask:
            try:
                ask(method, model_name=name).result()
            except grpc.RpcError as error:
                failed: Any = error
                return failed.code().name, failed.details()
        return "OK", ""

    denied = ("PERMISSION_DENIED", "this server does not load or unload models for its callers")
    for method in ("RepositoryModelLoad", "RepositoryModelUnload"):
        assert outcome(method, "mnist") == denied
    before = set(one.server.worker_pids())
    assert "repository_calls" in one.reload(EXPLICIT + ALLOWED)
    until(lambda: not set(one.server.worker_pids()) & before, "the end of those before")
    assert outcome("RepositoryModelLoad", "mnist") == ("OK", "")
    for method in ("RepositoryModelLoad", "RepositoryModelUnload"):
        code, message = outcome(method, "cats")
        assert code == "PERMISSION_DENIED"
        assert message == "models.cats.control: expected explicit, got poll"
    with Client(one.address, timeout=WAIT_S) as client:
        assert {each.name for each in client.models()} == {"cats", "mnist"}
    assert one.server.terminate() == 0
