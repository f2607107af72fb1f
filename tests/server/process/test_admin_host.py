"""The process that hears operators, under a supervisor that the test is."""

import os
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from convserve_protos import admin_pb2 as pb
from convserve_protos import admin_pb2_grpc
from convserve_server.core.administration import VersionState, VersionStatus
from convserve_server.core.errors import NotFound
from convserve_server.process.messages import (
    EXIT_CONFIG,
    AdminRequest,
    Alive,
    CannotStart,
    Message,
    Ready,
)
from convserve_server.process.remote_administration import follow
from convserve_server.process.slot import Slot
from convserve_server.process.worker_spec import encode_settings
from convserve_server.settings.settings import make_settings
from tests.server.fake_administration import FakeAdministration

PATIENCE_S = 60.0


class Host:
    """The process, and a supervisor of one thread."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.fake = FakeAdministration()
        self.slot = Slot(0, "convserve_server.process.admin_host")
        settings = make_settings(models=str(socket.parent), admin_socket=str(socket))
        self.slot.launch(encode_settings(settings), (), os.environ)

    def messages(self, until: type[Message]) -> Message:
        """Answers requests until there is a message of a type, and returns that."""
        assert self.slot.channel is not None
        end = time.monotonic() + PATIENCE_S
        while True:
            # A heartbeat alone does not count.
            assert select.select([self.slot.channel], [], [], end - time.monotonic())[0]
            received = self.slot.channel.receive()
            assert received is not None
            for message in received:
                if isinstance(message, AdminRequest):
                    follow(message, self.fake, self.slot.channel.send)
                if isinstance(message, until):
                    return message
                assert isinstance(message, Alive | AdminRequest)

    def ask(self, make: Callable[[admin_pb2_grpc.AdminStub], Any]) -> Any:
        """Asks as an operator does, while the supervisor answers."""
        with grpc.insecure_channel(f"unix:{self.socket}") as channel:
            call = make(admin_pb2_grpc.AdminStub(channel))
            self.messages(AdminRequest)
            return call.result(PATIENCE_S)

    def wait(self) -> int:
        assert self.slot.process is not None
        status = self.slot.process.wait(PATIENCE_S)
        assert self.slot.channel is not None
        self.slot.channel.close()
        return status


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Host]]:
    hosts: list[Host] = []

    def make() -> Host:
        hosts.append(Host(tmp_path / "admin"))
        return hosts[-1]

    yield make
    for host in hosts:
        assert host.slot.process is not None
        host.slot.process.kill()
        host.wait()


@pytest.fixture
def host(start: Callable[[], Host]) -> Host:
    started = start()
    started.messages(Ready)
    return started


def test_operator_is_answered_by_the_supervisor(host: Host) -> None:
    request = pb.LoadModelRequest(model="mnist", version=3)
    assert host.ask(lambda stub: stub.LoadModel.future(request)) == pb.LoadModelResponse()
    assert host.fake.asked == [("load", "mnist", 3)]
    host.fake.versions = [VersionStatus("mnist", 3, VersionState.SERVED, labels=("stable",))]
    reply = host.ask(lambda stub: stub.ListVersions.future(pb.ListVersionsRequest()))
    assert [(one.model, one.version, list(one.labels)) for one in reply.versions] == [
        ("mnist", 3, ["stable"])
    ]
    host.fake.error = NotFound("version", "mnist/9", "there is no mnist/9")
    with pytest.raises(grpc.RpcError) as caught:
        host.ask(lambda stub: stub.LoadModel.future(request))
    assert caught.value.code().value[0] == code_pb2.NOT_FOUND


def test_socket_is_the_owners_alone_and_there_is_no_port(host: Host) -> None:
    assert stat.S_IMODE(host.socket.stat().st_mode) == 0o600
    assert host.slot.process is not None
    sockets = {
        os.readlink(each)
        for each in Path(f"/proc/{host.slot.process.pid}/fd").iterdir()
        if os.path.lexists(each) and os.readlink(each).startswith("socket:")
    }
    inodes = {name.removeprefix("socket:[").removesuffix("]") for name in sockets}
    for table in ("tcp", "tcp6", "udp", "udp6"):
        lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        assert not {line.split()[9] for line in lines} & inodes


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_other_users_cannot_connect(host: Host) -> None:
    host.socket.parent.chmod(0o755)
    script = (
        "import os, socket, sys\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "try: socket.socket(socket.AF_UNIX).connect(sys.argv[1])\n"
        "except PermissionError: print('refused')\n"
    )
    # By a descriptor's name, since the folders above are private, too.
    folder = os.open(host.socket.parent, os.O_PATH)
    os.set_inheritable(folder, True)
    done = subprocess.run(
        [sys.executable, "-c", script, f"/proc/self/fd/{folder}/{host.socket.name}"],
        check=True, capture_output=True, pass_fds=[folder], text=True,
    )  # fmt: skip
    os.close(folder)
    assert done.stdout == "refused\n"


def test_health_and_reflection_are_there(host: Host) -> None:
    with grpc.insecure_channel(f"unix:{host.socket}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "convserve.v1.Admin"):
            reply = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE_S)
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        wanted = reflection_pb2.ServerReflectionRequest(file_containing_symbol="convserve.v1.Admin")
        (found,) = reflection.ServerReflectionInfo(iter([wanted]), timeout=PATIENCE_S)
        assert found.file_descriptor_response.file_descriptor_proto


@pytest.mark.parametrize("how", ["SIGTERM", "end of the supervisor"])
def test_socket_is_removed_at_the_end(host: Host, how: str) -> None:
    assert host.slot.process is not None
    assert host.slot.channel is not None
    if how == "SIGTERM":
        # These are the supervisor's to follow.
        host.slot.process.send_signal(signal.SIGHUP)
        host.slot.process.send_signal(signal.SIGINT)
        host.slot.process.terminate()
    else:
        host.slot.channel.close()
    assert host.slot.process.wait(PATIENCE_S) == 0
    assert not host.socket.exists()


def test_call_that_waits_hears_that_the_server_stops(host: Host) -> None:
    host.fake.held = True
    assert host.slot.process is not None
    with grpc.insecure_channel(f"unix:{host.socket}") as channel:
        call = admin_pb2_grpc.AdminStub(channel).LoadModel.future(
            pb.LoadModelRequest(model="mnist")
        )
        host.messages(AdminRequest)
        host.slot.process.terminate()
        with pytest.raises(grpc.RpcError) as caught:
            call.result(PATIENCE_S)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert host.wait() == 0


def test_socket_of_a_killed_process_is_replaced_that_of_a_living_one_is_not(
    host: Host, start: Callable[[], Host]
) -> None:
    second = start()
    refusal = second.messages(CannotStart)
    assert refusal == CannotStart(f"admin_socket: another server listens there, got {host.socket}")
    assert second.wait() == EXIT_CONFIG
    assert host.slot.process is not None
    host.slot.process.kill()
    host.slot.process.wait(PATIENCE_S)
    assert host.socket.exists()
    third = start()
    third.messages(Ready)
    reply = third.ask(lambda stub: stub.ListVersions.future(pb.ListVersionsRequest()))
    assert reply == pb.ListVersionsResponse()
