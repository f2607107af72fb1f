"""The configuration as it is shipped; age of connections, rate of calls, certificates."""

import socket
import ssl
import subprocess
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.harness.envoy import Envoy, write_certificate, write_config
from benchmarks.harness.name_server import NameServer
from benchmarks.harness.traffic import Counts, Question, ThreadTraffic, going_on
from convserve import Client, ServerBusy
from tests.bundles import digit_of
from tests.clients.scripted_server import ScriptedServer, expected_label
from tests.envoy.conftest import TIMEOUT_S, StartEnvoy

pytestmark = pytest.mark.envoy

QUESTION = Question(digit_of(1)[..., 0], expected_label(digit_of(1)))
OPEN = "http.ingress.downstream_cx_active"
LOOK_S = 0.1
AGES = "http.ingress.downstream_cx_max_duration_reached"


def test_configuration_is_valid_and_nothing_of_it_is_deprecated(
    program: Path, tmp_path: Path
) -> None:
    write_certificate(tmp_path)
    done = subprocess.run(
        [program, "--mode", "validate", "--config-path", write_config(tmp_path)],
        capture_output=True, text=True, timeout=TIMEOUT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "OK" in done.stdout
    assert "warning" not in done.stderr


def test_connections_that_are_old_are_renewed_and_no_call_is_lost(
    scripted: ScriptedServer, start_envoy: StartEnvoy
) -> None:
    old = {"max_connection_duration: 600s": "max_connection_duration: 0.2s"}
    envoy = start_envoy(scripted.address, old | {"drain_timeout: 10s": "drain_timeout: 0.1s"})
    counts = Counts([QUESTION])
    options = {"model": "mnist", "timeout": TIMEOUT_S, "retry_unavailable": False}
    end = time.monotonic() + TIMEOUT_S
    with going_on(ThreadTraffic(envoy.address, 8, **options), counts):
        while envoy.counters(AGES)[AGES] < 5:
            assert time.monotonic() < end
    assert counts.ended > 0
    assert dict(counts.lost) == {}


def test_stream_outlives_the_age_of_its_connection(
    scripted: ScriptedServer, start_envoy: StartEnvoy
) -> None:
    old = {"max_connection_duration: 600s": "max_connection_duration: 0.2s"}
    envoy = start_envoy(scripted.address, old | {"drain_timeout: 10s": "drain_timeout: 0.1s"})
    with Client(envoy.address, model="mnist", retry_unavailable=False) as client:

        def images() -> object:
            yield QUESTION.image
            end = time.monotonic() + TIMEOUT_S
            while envoy.counters(AGES)[AGES] < 1:
                assert time.monotonic() < end
            client.models()  # Over the next connection; GOAWAY has come.
            yield QUESTION.image

        outcomes = dict(client.stream(images()))  # type: ignore[arg-type]
    assert [outcomes[number].label for number in (0, 1)] == [QUESTION.label] * 2  # type: ignore[union-attr]


def test_envoy_that_is_drained_before_it_ends_loses_no_call(
    program: Path, scripted: ScriptedServer, tmp_path: Path
) -> None:
    host, _, port = scripted.address.rpartition(":")
    with ExitStack() as stack:
        names = stack.enter_context(NameServer([host]))
        envoys = []
        for number in range(2):
            folder = tmp_path / str(number)
            folder.mkdir()
            write_certificate(folder)
            envoys.append(Envoy(program, folder, names.address, int(port)))
            stack.enter_context(envoys[-1])
        both = ",".join(envoy.address for envoy in envoys)
        counts = Counts([QUESTION])
        options = {"model": "mnist", "timeout": TIMEOUT_S, "retry_unavailable": False}
        with going_on(ThreadTraffic(f"ipv4:{both}", 8, **options), counts):
            counts.wait_for(100)
            envoys[0].drain()
            _wait_until_idle(envoys[0])
            envoys[0].terminate()
            counts.wait_for(counts.ended + 100)
    assert dict(counts.lost) == {}


def _wait_until_idle(envoy: Envoy) -> None:
    end = time.monotonic() + TIMEOUT_S
    while envoy.counters(OPEN)[OPEN]:
        assert time.monotonic() < end
        time.sleep(LOOK_S)


def test_calls_over_the_rate_are_refused_and_not_tried_again(
    scripted: ScriptedServer, start_envoy: StartEnvoy
) -> None:
    few = "max_tokens: 5, tokens_per_fill: 5, fill_interval: 3600s"
    rate = "max_tokens: 100000, tokens_per_fill: 100000, fill_interval: 1s"
    envoy = start_envoy(scripted.address, {rate: few})
    ends: Counter[str] = Counter()
    with Client(envoy.address, model="mnist", retry_unavailable=False) as client:
        for _ in range(12):
            try:
                client.classify(QUESTION.image)
            except ServerBusy:
                ends["refused"] += 1
            else:
                ends["answered"] += 1
    assert ends == {"answered": 5, "refused": 7}
    assert len(scripted.requests) == 5


def test_certificate_that_is_renewed_is_shown_to_new_connections(
    scripted: ScriptedServer, start_envoy: StartEnvoy, tmp_path: Path
) -> None:
    envoy = start_envoy(scripted.address)
    before = _certificate(envoy.tls_address)
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    write_certificate(fresh)
    for name in ("tls.key", "tls.crt"):
        (fresh / name).rename(tmp_path / name)
    end = time.monotonic() + TIMEOUT_S
    while _certificate(envoy.tls_address) == before:
        assert time.monotonic() < end


def _certificate(address: str) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), TIMEOUT_S) as raw,
        context.wrap_socket(raw, server_hostname=host) as connection,
    ):
        found = connection.getpeercert(binary_form=True)
    assert found
    return found
