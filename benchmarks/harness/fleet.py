"""Several servers of one model at one port, each at an address of this machine of its own."""

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from benchmarks.harness.ports import free_port
from benchmarks.harness.processes import ServerFailed, ServerProcess
from convserve_protos import open_inference_pb2 as open_inference

_DEADLINE_S = 30.0
_STATISTICS = "/inference.GRPCInferenceService/ModelStatistics"


class Replica(ServerProcess):
    """One of the servers.

    Args:
        host: 127.0.0.N.
        port: that all have.
        models: folder of bundles.
        flags: more flags of convserve-serve.
    """

    def __init__(self, host: str, port: int, models: Path, flags: Sequence[str]) -> None:
        command = [
            sys.executable, "-m", "convserve_server.main", "--models", str(models.resolve()),
            "--host", host, "--port", str(port), "--device", "cpu", "--log-format", "json", *flags,
        ]  # fmt: skip
        super().__init__(host, command)
        self.host = host
        self._at = f"{host}:{port}"

    def __enter__(self) -> Self:
        """See ServerProcess."""
        super().__enter__()
        self.address = self._at
        return self

    def kill(self) -> None:
        """SIGKILL for all its processes at once, as a machine dies that loses its power."""
        os.killpg(self.root(), signal.SIGKILL)

    def rows(self) -> int:
        """How many images it has answered since it was started.

        Raises:
            grpc.RpcError: it does not answer.
        """
        with grpc.insecure_channel(self.address) as channel:
            ask = channel.unary_unary(
                _STATISTICS,
                open_inference.ModelStatisticsRequest.SerializeToString,
                open_inference.ModelStatisticsResponse.FromString,
            )
            reply: open_inference.ModelStatisticsResponse = ask(
                open_inference.ModelStatisticsRequest(), timeout=_DEADLINE_S
            )
        return sum(each.inference_count for each in reply.model_stats)


class Fleet:
    """The servers 0, 1, 2 and so on, from entering the context to leaving it.

    Args:
        models: folder of bundles.
        flags: more flags of convserve-serve.

    Attributes:
        port: of all of them.
        running: the servers by their numbers.
    """

    def __init__(self, models: Path, flags: Sequence[str] = ()) -> None:
        self.port = free_port()
        self.running: dict[int, Replica] = {}
        self._models = models
        self._flags = flags
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def start(self, number: int) -> Replica:
        """Starts a server and waits until it serves.

        Raises:
            ServerFailed: it does not; with its output.
        """
        replica = Replica(self.host(number), self.port, self._models, self._flags)
        try:
            self.running[number] = self._stack.enter_context(replica)
        except ServerFailed as error:
            raise ServerFailed(f"{error}\n{replica.output()}") from error
        return replica

    def kill(self, number: int) -> None:
        """Kills a server."""
        self.running.pop(number).kill()

    def terminate(self, number: int) -> int:
        """Sends SIGTERM to a server, and returns its exit status once it has ended."""
        return self.running.pop(number).terminate()

    @staticmethod
    def host(number: int) -> str:
        """Returns the address of a server."""
        return f"127.0.0.{number + 2}"
