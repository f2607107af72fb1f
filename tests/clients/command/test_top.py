"""`convserve top`: what it prints of two pages, and of pages that it cannot read."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from convserve.command.top import command
from convserve.main import main
from convserve_server.security.tls import TlsFiles, server_context
from convserve_server.telemetry.metrics import METRICS
from tests.certificates import Authority
from tests.metrics_pages import COUNTERS, GAUGES, HISTOGRAMS, FakeMetrics, MetricsServer

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetricsServer]:
    server = MetricsServer()
    monkeypatch.setenv("CONVSERVE_METRICS", server.url)
    yield server
    server.stop()


@pytest.fixture
def between(page: MetricsServer, monkeypatch: pytest.MonkeyPatch) -> FakeMetrics:
    """The page's numbers; what the test adds to them is between the two readings."""
    monkeypatch.setattr(command, "_sleep", lambda _: None)
    return page.metrics


def document(capsys: Capture, *arguments: str) -> dict[str, Any]:
    assert main(["top", "--format", "json", "--interval", "0.01", *arguments]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_numbers_are_those_of_the_interval_and_since_the_start(
    page: MetricsServer, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.metrics.calls(80, 0.0201)
    page.metrics.add("refused", 5, "QUEUE_FULL")

    def work(_: float) -> None:
        page.metrics.calls(16, 0.0009)
        page.metrics.add("calls", 3, "Classify", "mnist", "1", "RESOURCE_EXHAUSTED")
        page.metrics.add("refused", 3, "QUEUE_FULL")
        page.metrics.add("worker_restarts", 1, "2")
        page.metrics.set("queue_work_seconds", 0.25, "mnist", "1")

    monkeypatch.setattr(command, "_sleep", work)
    found = document(capsys)
    (mnist,) = found["models"]
    assert (mnist["model"], mnist["version"], mnist["state"]) == ("mnist", "1", "served")
    assert mnist["queue_work_s"] == 0.25
    interval, start = mnist["interval"], mnist["since_start"]
    assert (interval["calls"], interval["images"], interval["batches"]) == (19, 16, 2)
    assert (start["calls"], start["images"], start["batches"]) == (99, 96, 12)
    assert interval["errors"] == {"RESOURCE_EXHAUSTED": 3}
    assert interval["batch_images_mean"] == 8
    assert interval["whole_s"]["mean"] == pytest.approx(0.0009)
    assert 0.0008 < interval["whole_s"]["p99"] <= 0.0016
    assert 0.0128 < start["whole_s"]["p50"] <= 0.0256
    assert found["refused"] == {"QUEUE_FULL": {"since_start": 8, "interval": 3}}
    assert found["processes"][2]["restarts"] == {"since_start": 1, "interval": 1}
    assert found["workers"] == {"serving": 2}


def test_text_has_a_row_for_each_version_and_every_line_fits(
    between: FakeMetrics, capsys: Capture
) -> None:
    between.set("model_state", 1, "broken", "3", "refused")
    between.calls(8)
    assert main(["top", "--interval", "0.01"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 200
    rows = [line.split()[:2] for line in lines]
    assert rows.index(["broken/3", "refused"]) < rows.index(["mnist/1", "served"])
    assert ["supervisor", "45"] in rows
    assert "\x1b" not in "".join(lines)


def test_name_from_the_page_cannot_steer_the_terminal(
    between: FakeMetrics, capsys: Capture
) -> None:
    between.set("model_state", 1, "[red]\x1b[2J", "1", "serv\x07ing")
    assert main(["top", "--interval", "0.01"]) == 0
    printed = capsys.readouterr().out
    assert "[red]\\x1b[2J" in printed
    assert not {"\x1b", "\x07"} & set(printed)


def test_counters_that_fell_are_counted_from_zero(
    page: MetricsServer, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.metrics.calls(80)

    def restart(_: float) -> None:
        page.metrics = FakeMetrics()
        page.metrics.calls(16)

    monkeypatch.setattr(command, "_sleep", restart)
    found = document(capsys)
    assert found["restarted"] is True
    assert found["models"][0]["interval"]["calls"] == 16
    assert found["models"][0]["since_start"]["calls"] == 16


def test_key_of_the_file_is_sent(page: MetricsServer, tmp_path: Path, capsys: Capture) -> None:
    page.key = "open-sesame"
    file = tmp_path / "key"
    file.write_text("open-sesame\n")
    document(capsys, "--key-file", str(file))
    file.write_text("another")
    assert main(["top", "--key-file", str(file)]) == 1
    printed = capsys.readouterr().err
    assert printed.endswith(
        f"metrics page {page.url}: it needs the key that the server has in --metrics-key-file\n"
    )


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"", 1), (b"two words", 1), (b"a\nHost: b", 1), (b"\xff", 2), (None, 2)],
)
def test_file_without_a_key_is_named_and_its_content_is_not(
    page: MetricsServer, tmp_path: Path, capsys: Capture, content: bytes | None, status: int
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    assert main(["top", "--key-file", str(file)]) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert "--key-file: " in line
    assert not page.seen
    assert "words" not in line
    assert "Host" not in line


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((200, b""), "it has no metrics of Convserve"),
        ((200, b"python_info 1\n"), "it has no metrics of Convserve"),
        ((200, b"<html>hello</html>"), "it is not in the format of Prometheus"),
        ((200, b'convserve_calls_total{a="b" 1\n'), "it is not in the format of Prometheus"),
        ((200, b"convserve_calls_total one\n"), "it is not in the format of Prometheus"),
        ((302, b""), "expected status 200, got 302 Found"),
        ((404, b""), "expected status 200, got 404 Not Found"),
    ],
)
def test_what_is_no_page_is_one_line(
    page: MetricsServer, capsys: Capture, answer: tuple[int, bytes], reason: str
) -> None:
    page.answer = answer
    assert main(["top"]) == 1
    assert capsys.readouterr() == ("", f"convserve: metrics page {page.url}: {reason}\n")


def test_absent_page_is_one_line_and_can_be_waited_for(
    page: MetricsServer, capsys: Capture
) -> None:
    page.stop()
    assert main(["top"]) == 1
    assert capsys.readouterr().err == (
        f"convserve: metrics page {page.url}: Connection refused; is the server running with"
        " --metrics-port?\n"
    )
    assert main(["top", "--wait", "0.01"]) == 1
    assert "waiting for" in capsys.readouterr().err


def test_page_that_does_not_come_is_given_up(capsys: Capture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/metrics"
        assert main(["top", "--metrics", url, "--timeout", "0.1"]) == 1
    assert capsys.readouterr().err == f"convserve: metrics page {url}: no answer within 0.1 s\n"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nconvserve_workers 1\n",
            "it ends too early",
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no answer of HTTP: BadStatusLine"),
        (b"", "the connection ended without an answer; a page over TLS needs https"),
    ],
)
def test_answer_that_is_cut_or_not_of_http_is_one_line(
    capsys: Capture, answer: bytes, reason: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/metrics"

        def speak() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=speak)
        thread.start()
        assert main(["top", "--metrics", url]) == 1
        thread.join()
    assert capsys.readouterr().err.startswith(f"convserve: metrics page {url}: {reason}")


@pytest.mark.parametrize(
    "url", ["localhost:9464", "ftp://a/metrics", "http://", "http://a:b", "http://u:p@a/metrics"]
)
def test_wrong_url_exits_with_2(capsys: Capture, url: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["top", "--metrics", url])
    assert caught.value.code == 2
    assert f"--metrics: expected a URL, as http://127.0.0.1:9464/metrics, got {url!r}" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("package", ["rich", "prometheus_client"])
def test_extra_that_is_missing_is_one_line(package: str) -> None:
    program = (
        f"import sys; sys.modules[{package!r}] = None;"
        "from convserve.main import main; sys.exit(main(['top']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"convserve: {package} is not installed; run: pip install 'convserve[top]'\n"
    )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def tls_page(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[MetricsServer]:
    """A page that only speaks TLS, with clients that its authority has signed."""
    own = authority.issue("metrics.test")
    files = TlsFiles(cert=own.cert, key=own.key, client_ca=authority.ca)
    server = MetricsServer(context=server_context(files, ["http/1.1"]))
    monkeypatch.setenv("CONVSERVE_METRICS", server.url)
    yield server
    server.stop()


def test_page_is_read_over_mutual_tls(
    tls_page: MetricsServer, authority: Authority, capsys: Capture
) -> None:
    client = authority.issue("someone@client.test")
    options = ["--tls-ca", str(authority.ca), "--tls-server-name", "metrics.test"]
    own = ["--tls-cert", str(client.cert), "--tls-key", str(client.key)]
    assert document(capsys, *options, *own)["metrics"] == tls_page.url
    assert main(["top", *own, "--tls-ca", str(authority.ca)]) == 1
    assert "TLS: " in (named := capsys.readouterr().err)
    assert "127.0.0.1" in named.partition("TLS: ")[2]
    assert main(["top", *options[2:], *own]) == 1
    assert "certificate" in capsys.readouterr().err
    assert main(["top", *options]) == 1
    assert f"metrics page {tls_page.url}: TLS: " in capsys.readouterr().err


def test_files_of_tls_that_are_not_there_are_named(
    tls_page: MetricsServer, authority: Authority, capsys: Capture
) -> None:
    assert main(["top", "--tls-ca", "gone.pem"]) == 1
    assert "tls_ca: expected a file that can be read, got gone.pem" in capsys.readouterr().err
    assert main(["top", "--tls-cert", str(authority.ca)]) == 1
    assert "tls_key: expected a file beside tls_cert, got none" in capsys.readouterr().err


def test_page_of_these_tests_has_the_names_of_the_real_one() -> None:
    ours = {f"{name}_total": labels for name, labels in COUNTERS.items()}
    ours |= dict.fromkeys(HISTOGRAMS, ("model", "version")) | GAUGES
    real = {metric.name: metric.labels for metric in METRICS}
    assert ours == {name: real[name] for name in ours}
