"""Envoy by deploy/envoy/envoy.yaml, with other addresses, ports and files.

Source: https://www.envoyproxy.io/docs/envoy/v1.40.0/operations/cli, and /admin there.
"""

import json
import shutil
import socket
import subprocess
import textwrap
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import trustme

from benchmarks.harness.name_server import NAME
from benchmarks.harness.ports import free_port
from benchmarks.harness.processes import ServerFailed, ServerProcess

CONFIG = Path(__file__).parents[2] / "deploy" / "envoy" / "envoy.yaml"
CERTIFICATE = CONFIG.with_name("certificate.yaml")
KUBERNETES = CONFIG.with_name("kubernetes.yaml")
PROTOSET = CONFIG.with_name("convserve.protoset")
#: Where `make test-envoy` installs it.
INSTALLED = Path(__file__).parents[2] / ".venv-envoy" / "bin" / "envoy"

#: As in kubernetes.yaml. Once it is asked to drain, all connections get GOAWAY at once, and it
#: listens for ten seconds more.
ARGUMENTS = ("--drain-time-s", "10", "--drain-strategy", "immediate", "--disable-hot-restart")

_SERVES = "starting workers"
_DEADLINE_S = 30.0
_LOOK_AGAIN_S = 0.01


def find_envoy(given: Path | None = None) -> Path | None:
    """Returns Envoy's program: the given one, that of `make test-envoy`, or of PATH."""
    if given is not None:
        return given
    found = shutil.which("envoy")
    return INSTALLED if INSTALLED.exists() else Path(found) if found else None


def write_certificate(folder: Path) -> bytes:
    """Writes tls.crt and tls.key of a certificate for localhost, and ca.crt of who signed it."""
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost", "127.0.0.1")
    (folder / "tls.crt").write_bytes(b"".join(part.bytes() for part in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(str(folder / "tls.key"))
    authority.cert_pem.write_to_path(str(folder / "ca.crt"))
    return authority.cert_pem.bytes()


def options_before(folder: Path) -> dict[str, Any]:
    """Returns the options of a client that calls Envoy over TLS, which tries lost calls again."""
    return {"tls_ca": folder / "ca.crt", "retry_unavailable": False}


def write_config(folder: Path, changes: Mapping[str, str] | None = None) -> Path:
    """Writes the shipped configuration with some texts replaced, and returns its main file.

    Args:
        folder: For the files; has tls.crt and tls.key.
        changes: New texts by the old ones, beside the paths of files.

    Raises:
        ValueError: an old text is not there.
    """
    certificate = folder / CERTIFICATE.name
    certificate.write_text(_replaced(CERTIFICATE, {"/etc/envoy-tls": str(folder)}))
    paths = {"/etc/envoy/certificate.yaml": certificate, "/etc/envoy/convserve.protoset": PROTOSET}
    config = folder / CONFIG.name
    config.write_text(
        _replaced(CONFIG, {old: str(new) for old, new in paths.items()} | dict(changes or {}))
    )
    return config


def _replaced(file: Path, changes: Mapping[str, str]) -> str:
    try:
        return _replaced_in(file.read_text(), changes)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _replaced_in(text: str, changes: Mapping[str, str]) -> str:
    for old, new in changes.items():
        if old not in text:
            raise ValueError(f"expected the text {old!r}, got none")
        text = text.replace(old, new)
    return text


class Envoy(ServerProcess):
    """Envoy before servers, from entering the context to leaving it.

    Args:
        program: of find_envoy.
        folder: for its files, with tls.crt and tls.key.
        name_server: host:port that is asked for the servers' name.
        port: of the servers.
        changes: more for write_config.
        threads: that serve.
        tls: whether its address is the one with TLS.

    Attributes:
        address: host:port.
        plain_address: without TLS.
        tls_address: with TLS.
        admin: its own pages.
    """

    def __init__(
        self,
        program: Path,
        folder: Path,
        name_server: str,
        port: int,
        changes: Mapping[str, str] | None = None,
        threads: int = 1,
        *,
        tls: bool = False,
    ) -> None:
        self._tls = tls
        ports = {8443: free_port(), 8080: free_port(), 9901: free_port()}
        self.plain_address = f"127.0.0.1:{ports[8080]}"
        self.tls_address = f"127.0.0.1:{ports[8443]}"
        self.admin = f"127.0.0.1:{ports[9901]}"
        file = write_config(
            folder,
            {
                **{f"port_value: {old}}}": f"port_value: {ports[old]}}}" for old in ports},
                "address: 0.0.0.0": "address: 127.0.0.1",
                "address: convserve, port_value: 50051": f"address: {NAME}, port_value: {port}",
                **(changes or {}),
            },
        )
        command = [
            str(program), "--config-path", str(file),
            "--config-yaml", json.dumps({"typed_dns_resolver_config": _resolver(name_server)}),
            "--concurrency", str(threads), *ARGUMENTS,
            "--log-format", '{"level": "%l", "message": "%j"}',
        ]  # fmt: skip
        super().__init__(
            "envoy", command, port_in=lambda line: ports[8080] if _SERVES in line else None
        )

    def __enter__(self) -> Self:
        """Start and wait until it accepts connections.

        Raises:
            ServerFailed: if it ended, or does not.
        """
        super().__enter__()
        self.address = self.tls_address if self._tls else self.plain_address
        # It says that it begins before its threads listen.
        end = time.monotonic() + _DEADLINE_S
        for address in (self.plain_address, self.tls_address):
            host, _, port = address.rpartition(":")
            while True:
                try:
                    socket.create_connection((host, int(port)), _DEADLINE_S).close()
                    break
                except ConnectionRefusedError as error:
                    if time.monotonic() > end:
                        self.__exit__(None, None, None)
                        raise ServerFailed(f"{self.name} does not listen on {address}") from error
                    time.sleep(_LOOK_AGAIN_S)
        return self

    def drain(self) -> None:
        """Runs the preStop of kubernetes.yaml but for its sleep, so that its clients leave.

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        _, _, after = KUBERNETES.read_text().partition("- |\n")
        script = textwrap.dedent(after.partition("sleep ")[0]).strip()
        script = _replaced_in(script, {"127.0.0.1/9901": self.admin.replace(":", "/")})
        done = subprocess.run(
            ["bash", "-ec", script], capture_output=True, check=True, timeout=_DEADLINE_S
        )
        if b" 200 OK" not in done.stdout:
            raise ServerFailed(f"{self.name} does not drain: {done.stdout!r}")

    def counters(self, prefix: str) -> dict[str, int]:
        """Returns its counters whose names begin so, by their names."""
        url = f"http://{self.admin}/stats?format=json&filter=^{prefix}"
        with urllib.request.urlopen(url, timeout=_DEADLINE_S) as page:
            stats = json.load(page)["stats"]
        return {each["name"]: each["value"] for each in stats if "value" in each}


def _resolver(name_server: str) -> dict[str, object]:
    """Returns what has Envoy ask one name server alone."""
    host, _, port = name_server.rpartition(":")
    kind = (
        "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"
    )
    address = {"socket_address": {"address": host, "port_value": int(port)}}
    config = {"@type": kind, "resolvers": [address], "use_resolvers_as_fallback": False}
    return {"name": "envoy.network.dns_resolver.cares", "typed_config": config}
