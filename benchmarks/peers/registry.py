"""What is compared: how each server is started, and in which protocol it is asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.bundles import Bundle
from benchmarks.harness.processes import ServerProcess
from benchmarks.harness.servers import BASELINE, naive, ours
from benchmarks.harness.wire_formats import (
    Base64,
    Base64Each,
    ConvserveV1,
    OpenInference,
    RawBytes,
    WireFormat,
)

_ROOT = Path(__file__).parents[2]
_SERVERS = Path(__file__).parent / "servers"
_OURS = "convserve"
_ASYNCIO = "naive-asyncio"
_TRITON = "triton"
#: Instances of Triton's session, and its maximum batching delay, µs.
_TRITON_SETTINGS = ((1, 0), (1, 1000), (2, 0), (2, 1000))
#: Where a server's own file is, when there is one.
_MODULES = {
    _ASYNCIO: "asyncio_server",
    "mlserver": "mlserver_server",
    "litserve": "litserve_server",
    "bentoml": "bentoml_server",
    "ray": "ray_server",
    "mosec": "mosec_server",
    _TRITON: "triton_server",
}


@dataclass(frozen=True)
class Peer:
    """A server.

    Args:
        name: for the table.
        choice: name for --only.
        wire_format: in which it is asked.
        requirements: what its environment is made from; None if it runs in ours.
        options: more arguments of its module.
        absent: why it cannot be had; empty if it can.
    """

    name: str
    choice: str
    wire_format: WireFormat
    requirements: Path | None = None
    options: Sequence[str] = ()
    absent: str = ""

    def server(self, python: Path, bundle: Path, scratch: Path, flags: str) -> ServerProcess:
        """It, not started.

        Args:
            python: interpreter of its environment.
            bundle: the model file.
            scratch: folder for what it writes.
            flags: more flags for ours.
        """
        if self.choice == BASELINE:
            return naive(bundle, self.name)
        if self.choice == _OURS:
            return next(server for server in ours(bundle, flags) if server.name == self.name)
        settings = [f"{name}={value}" for name, value in _settings(scratch).items()]
        module = f"benchmarks.peers.servers.{_MODULES[self.choice]}"
        command = ["env", *settings, str(python), "-m", module, str(bundle.absolute())]
        if self.choice == _TRITON:
            command += ["--repository", str(scratch / "repository"), *self.options]
        return ServerProcess(self.name, command)


def _settings(scratch: Path) -> dict[str, str]:
    """Variables: what a server writes is thrown away, and it reports to nobody.

    Ray reads in every process how it is to serve.
    """
    return {
        "PYTHONPATH": f"{_ROOT}:{_ROOT / 'protos'}",
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "RAY_TMPDIR": str(scratch),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(scratch / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(scratch / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(scratch),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(scratch / "server-state"),
        "BENTOML_DO_NOT_TRACK": "True",
    }


def peers(bundle: Bundle, flags: str = "", tritonserver: Path | None = None) -> list[Peer]:
    """All, the baseline first.

    Args:
        bundle: that is served.
        flags: more flags for ours.
        tritonserver: folder of Triton; None if there is none.
    """
    convserve_v1 = ConvserveV1(bundle.model)
    raw = RawBytes("/inference", len(bundle.manifest.labels))
    return [
        Peer(BASELINE, BASELINE, convserve_v1),
        Peer(_ASYNCIO, _ASYNCIO, convserve_v1),
        *(Peer(server.name, _OURS, convserve_v1) for server in ours(bundle.file, flags)),
        *_triton(OpenInference(bundle.model), tritonserver),
        Peer("mosec", "mosec", raw, _SERVERS / "mosec.txt"),
        Peer("MLServer", "mlserver", OpenInference(bundle.model), _SERVERS / "mlserver.txt"),
        Peer("LitServe", "litserve", Base64("/predict"), _SERVERS / "litserve.txt"),
        Peer("BentoML", "bentoml", Base64Each("/classify"), _SERVERS / "bentoml.txt"),
        Peer("Ray Serve", "ray", convserve_v1, _SERVERS / "ray.txt"),
    ]


def _triton(wire_format: WireFormat, folder: Path | None) -> list[Peer]:
    """Triton in each of its settings; one without a folder says so."""
    if folder is None:
        return [Peer("Triton", _TRITON, wire_format, absent="there is no --tritonserver DIR")]
    return [
        Peer(
            f"Triton, {instances} instance{'s' if instances > 1 else ''}, {delay_us / 1000:g} ms",
            _TRITON,
            wire_format,
            options=(
                f"--tritonserver={folder.absolute()}",
                f"--instances={instances}",
                f"--max-delay-us={delay_us}",
            ),
        )
        for instances, delay_us in _TRITON_SETTINGS
    ]


CHOICES: Sequence[str] = (
    *(BASELINE, _ASYNCIO, _OURS, _TRITON),
    *("mosec", "mlserver", "litserve", "bentoml", "ray"),
)
