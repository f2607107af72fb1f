"""Keys over several workers: the file is read again, and rates hold over all of them."""

import json
import os
import signal
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from benchmarks.harness.ports import free_port
from convserve import Client, ConvserveError
from convserve_protos import classifier_pb2 as pb
from convserve_protos.classifier_pb2_grpc import ClassifierStub
from tests.bundles import digit_of
from tests.certificates import CLIENT, Authority
from tests.server.conftest import request_for
from tests.server.keys import key_table, metadata_of, token_of
from tests.system.conftest import WAIT_S, StartServer
from tests.system.test_supervision import until

#: So many, that some are with each of two workers: the kernel spreads them.
CONNECTIONS = 20
REQUEST = request_for(7)


@contextmanager
def connections(address: str, count: int = CONNECTIONS) -> Iterator[list[ClassifierStub]]:
    """So many connections."""
    channels = [
        grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
        for _ in range(count)
    ]
    try:
        yield [ClassifierStub(channel) for channel in channels]
    finally:
        for channel in channels:
            channel.close()


def outcome(stub: Any, key: str | None, timeout_s: float = WAIT_S) -> grpc.StatusCode:
    """The status of a call."""
    try:
        stub.Classify(REQUEST, timeout=timeout_s, metadata=metadata_of(key), wait_for_ready=True)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


OK, WRONG = grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED
TOO_MANY = grpc.StatusCode.RESOURCE_EXHAUSTED


def test_file_that_changes_is_followed_by_all_workers_and_a_wrong_one_by_none(
    start_server: StartServer, tmp_path: Path
) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(key_table("one"))
    server = start_server("--workers", "2", "--keys", str(file))
    address = server.wait_until_serving()

    def all_say(key: str | None, code: grpc.StatusCode) -> bool:
        with connections(address) as stubs:
            return all(outcome(stub, key) == code for stub in stubs)

    assert all_say("one", OK)
    assert all_say("two", WRONG)
    assert all_say(None, WRONG)
    file.write_text(key_table("two"))
    server.wait_for("keys: two; allowed without a key: nothing")
    until(lambda: all_say("two", OK), "the new key is not allowed")
    until(lambda: all_say("one", WRONG), "the old key is still allowed")
    file.write_text(key_table("three", "rate = -1"))
    message = server.wait_for("what was read before holds")["message"]
    assert "keys: key[0].rate: expected a number above 0" in message
    # Workers that start now have the keys that hold.
    for pid in server.worker_pids():
        os.kill(pid, signal.SIGKILL)
    until(lambda: all_say("two", OK), "the key no longer holds")
    assert all_say("three", WRONG)
    text = str(server.log)
    assert "token-of-" not in text
    assert server.terminate() == 0


def test_file_that_is_not_valid_at_the_start_is_an_error_of_the_command(
    start_server: StartServer, tmp_path: Path
) -> None:
    file = tmp_path / "keys.toml"
    file.write_text('[[key]]\nname = "one"')
    assert start_server("--keys", str(file)).wait() == 2
    assert start_server("--keys", str(tmp_path / "absent")).wait() == 2


def test_quota_is_of_all_workers_and_survives_them_and_the_file(
    start_server: StartServer, tmp_path: Path
) -> None:
    quota = 30
    file = tmp_path / "keys.toml"
    file.write_text(key_table("one", f"quota_per_day = {quota}"))
    server = start_server("--workers", "2", "--keys", str(file))
    address = server.wait_until_serving()
    with connections(address, 10) as stubs:
        assert {outcome(stub, "one") for stub in stubs} == {OK}
    for pid in server.worker_pids():
        os.kill(pid, signal.SIGKILL)
    file.write_text(key_table("new") + key_table("one", f"quota_per_day = {quota}"))
    server.wait_for("keys: new, one")

    def is_there() -> bool:
        with connections(address) as stubs:
            return {outcome(stub, "new") for stub in stubs} == {OK}

    until(is_there, "the workers are not replaced")
    with connections(address) as stubs:
        outcomes = [outcome(stub, "one") for stub in stubs for _ in range(3)]
    # If midnight of UTC comes meanwhile there is a new quota.
    assert outcomes.count(OK) == quota - 10
    assert outcomes.count(TOO_MANY) == 40
    assert server.terminate() == 0


def count_for(stubs: list[ClassifierStub], seconds: float) -> int:
    """How many calls are allowed in a time, of as many as twenty callers can make."""
    end = time.monotonic() + seconds
    allowed: list[int] = []

    def call(stub: Any) -> None:
        count = 0
        while time.monotonic() < end:
            code = outcome(stub, "one")
            count += code == OK
            assert code in (OK, TOO_MANY)
        allowed.append(count)

    threads = [threading.Thread(target=call, args=(stub,)) for stub in stubs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(allowed) == len(stubs)
    return sum(allowed)


def test_rate_holds_over_two_workers_and_twenty_connections(
    start_server: StartServer, tmp_path: Path
) -> None:
    file = tmp_path / "keys.toml"
    rate, seconds = 100, 5.0
    file.write_text(key_table("one", f"rate = {rate}"))
    server = start_server("--workers", "2", "--keys", str(file))
    with connections(server.wait_until_serving()) as stubs:
        before = time.monotonic()
        allowed = count_for(stubs, seconds)
        took = time.monotonic() - before
    # At most so many, whatever the machine does; fewer where it is too busy to ask.
    assert allowed <= rate * took * 1.05
    assert allowed >= rate * seconds * 0.5
    assert server.terminate() == 0


def test_models_that_a_key_does_not_see_are_in_no_list(
    start_server: StartServer, tmp_path: Path
) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(key_table("all") + key_table("none", 'models = ["other"]'))
    server = start_server("--keys", str(file), "--workers", "1")
    with connections(server.wait_until_serving(), 1) as (stub,):
        for key, names in (("all", ["mnist"]), ("none", [])):
            stub_: Any = stub
            response = stub_.ListModels(
                pb.ListModelsRequest(), metadata=metadata_of(key), timeout=WAIT_S
            )
            assert [one.name for one in response.models] == names
    assert server.terminate() == 0


def test_clients_show_a_key_from_a_file_or_a_certificate(
    start_server: StartServer, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    mine, robot = authority.server(), authority.client()
    file, key_file = tmp_path / "keys.toml", tmp_path / "one.key"
    file.write_text(
        key_table("one") + f'[[key]]\nname = "robot"\ncertificate = "{CLIENT}"\nmodels = []\n'
    )
    key_file.write_text(f"{token_of('one')}\n")
    server = start_server(
        *("--workers", "1", "--front", "grpcio", "--keys", str(file)),
        *("--http-port", str(port := free_port())),
        *("--tls-cert", str(mine.cert), "--tls-key", str(mine.key)),
        *("--tls-client-ca", str(authority.ca)),
    )
    address = server.wait_until_serving().replace("127.0.0.1", "localhost")
    other = authority.issue("other.test")
    shown: dict[str, Any] = {"tls_ca": authority.ca, "tls_cert": other.cert, "tls_key": other.key}
    with Client(address, **shown, key_file=key_file) as client:
        assert client.classify(digit_of(7)).label == "7"
    with (
        Client(address, **shown) as client,
        pytest.raises(ConvserveError, match="expected Bearer and a key, got none"),
    ):
        client.classify(digit_of(7))
    shown |= {"tls_cert": robot.cert, "tls_key": robot.key}
    with Client(address, **shown) as client:
        assert client.models() == []
        with pytest.raises(ConvserveError, match="expected one of this key, got 'mnist'"):
            client.classify(digit_of(7), model="mnist")
    context = ssl.create_default_context(cafile=str(authority.ca))
    context.load_cert_chain(robot.cert, robot.key)
    url = f"https://localhost:{port}/v1/models"
    with urllib.request.urlopen(url, context=context, timeout=WAIT_S) as reply:
        assert json.load(reply) == {"models": [], "refused": []}
    assert server.terminate() == 0
