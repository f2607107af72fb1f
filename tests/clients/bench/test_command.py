"""The command, against both fronts of a real server and against scripted ones."""

import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from convserve.main import main
from convserve_protos import bundle_pb2, classifier_pb2
from tests.bundles import write_bundle, write_photo_bundle
from tests.clients.command.test_stopping import BOTH, PROGRAM
from tests.clients.scripted_server import PATIENCE_S, Failure, ScriptedServer, answer, model
from tests.clients.test_retries import reserved_address
from tests.jpegs import jpeg_of
from tests.program import Program
from tests.system.conftest import ServerProcess

Capture = pytest.CaptureFixture[str]

SHORT = ["--seconds", "0.5", "--warm-up", "0.1", "--callers", "4", "--connections", "2"]
#: Eight measurements.
SWEEP = ["--sweep", *SHORT, "--seconds", "0.3", "--warm-up", "0.05"]


@pytest.fixture(scope="module", params=["grpcio", "native"])
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with a model of digits and one of photographs."""
    models = tmp_path_factory.mktemp("models")
    write_bundle(models)
    write_photo_bundle(models)
    running = ServerProcess(
        models, "--front", request.param, "--device", "cpu", "--workers", "2", "--max-images", "8"
    )
    yield running.wait_until_serving()
    assert running.terminate() == 0


def bench(*arguments: str) -> int:
    return main(["bench", *arguments, *SHORT])


def sweep(*arguments: str) -> None:
    # A machine that stalls may leave no call answered at one of the rates, which is status 1.
    assert main(["bench", *arguments, *SWEEP]) in (0, 1)


def result_of(capsys: Capture) -> dict[str, Any]:
    (line,) = capsys.readouterr().out.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


@pytest.mark.parametrize("rate", [[], ["--rate", "100"]], ids=["closed", "open"])
def test_real_server_answers_every_call(real: str, capsys: Capture, rate: list[str]) -> None:
    assert bench(real, "--model", "mnist", "--images", "3", "--format", "jsonl", *rate) == 0
    found = result_of(capsys)
    assert (found["model"], found["images"], found["callers"]) == ("mnist/1", 3, 4)
    assert found["loop"] == ("open" if rate else "closed")
    assert (found["failed"], found["errors"], found["connections_lost"]) == (0, {}, 0)
    assert found["calls_per_s"] > 0
    assert found["images_per_s"] == 3 * found["calls_per_s"]
    times = found["latency_ms"]
    order = [times[name] for name in ("p50", "p90", "p99", "p99.9", "max")]
    assert order == sorted(order)
    assert 0 < times["mean"] <= times["max"]
    assert found["server_us"]["compute"] > 0
    assert found["generator"]["cpu_us_a_call"] > 0
    if rate:
        # 50 were due; a machine that is busy to the end leaves some of them unsent, and says so.
        assert found["generator"]["scheduled"] + found["generator"]["unsent"] in (49, 50)


@pytest.mark.parametrize("what", ["made-up", "files", "pixels"])
def test_photographs_are_sent_as_asked(
    real: str, capsys: Capture, tmp_path: Path, what: str
) -> None:
    (tmp_path / "red.jpg").write_bytes(jpeg_of("red"))
    (tmp_path / "blue.jpg").write_bytes(jpeg_of("blue"))
    flags = {"files": ["--pictures", str(tmp_path)], "pixels": ["--pixels"]}.get(what, [])
    assert bench(real, "--model", "colours", "--images", "3", "--format", "jsonl", *flags) == 0
    found = result_of(capsys)
    assert found["failed"] == 0
    assert found["answered"] > 0
    # The server decodes files, and no pixels. Three files of two are one of them twice.
    assert (found["server_us"]["decode"] > 0) == (what != "pixels")
    sizes = {
        "files": 1.5 * sum(each.stat().st_size for each in tmp_path.iterdir()),
        "pixels": 3 * 150 * 150 * 3,
        "made-up": 3 * 30_000,
    }
    assert found["request_bytes"] == pytest.approx(sizes[what], rel=0.3)


def test_requests_larger_than_the_first_window_arrive(real: str, capsys: Capture) -> None:
    # 8 images of 67,500 bytes: more than eight times what may be sent before the server says so.
    assert bench(real, "--model", "colours", "--images", "8", "--pixels", "--format", "jsonl") == 0
    found = result_of(capsys)
    assert found["answered"] > 0
    assert found["failed"] == 0


def test_errors_of_the_real_server_are_counted(real: str, capsys: Capture) -> None:
    assert bench(real, "--model", "absent") == 1
    assert "model absent is not loaded; there is colours/1, mnist/1" in capsys.readouterr().err
    assert bench(real, "--model", "mnist", "--images", "9") == 1
    assert "9" in capsys.readouterr().err


def test_model_that_goes_away_is_reported_once_by_its_status(
    server: ScriptedServer, capsys: Capture
) -> None:
    def gone(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        # Once each of the 16 images was answered, which is before the run.
        if len(server.requests) > 20:
            raise Failure(grpc.StatusCode.NOT_FOUND, "model mnist is not loaded")
        return answer(request)

    server.answer = gone
    assert bench(server.address) == 1
    captured = capsys.readouterr()
    (line,) = (each for each in captured.err.splitlines() if each.startswith("failed: "))
    assert line.endswith(" NOT_FOUND: model mnist is not loaded")
    assert "answered" in captured.out


def test_table_says_what_was_done(server: ScriptedServer, capsys: Capture) -> None:
    assert bench(server.address, "--rate", "100") == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("mnist/1, 1 image a call (random pixels, 0.8 kB), 100 calls/s due")
    names = [line[:10].strip() for line in lines]
    assert names[:5] == ["calls/s", "images/s", "latency ms", "server µs", "generator"]
    assert names[-1] == "answered"


def test_same_seed_sends_the_same_images(server: ScriptedServer, capsys: Capture) -> None:
    def images() -> set[bytes]:
        seen = {each.pixels.data for each in server.requests}
        server.requests.clear()
        return seen

    assert bench(server.address, "--seed", "5") == 0
    first = images()
    assert len(first) == 16
    assert bench(server.address, "--seed", "5") == 0
    assert images() == first
    assert bench(server.address, "--seed", "6") == 0
    assert not images() & first


def test_sweep_prints_a_row_for_each_rate_and_draws_them(
    server: ScriptedServer, capsys: Capture, tmp_path: Path
) -> None:
    from PIL import Image

    file = tmp_path / "latency.png"
    sweep(server.address, "--plot", str(file))
    _, header, most, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["load", "due/s", "calls/s"]
    assert most.split()[:2] == ["most", "-"]
    assert [row.split()[0] for row in rows] == ["10%", "25%", "50%", "70%", "80%", "90%", "95%"]
    rates = [float(row.split()[1].replace(",", "")) for row in rows]
    best = float(most.split()[2].replace(",", ""))
    assert rates == pytest.approx(
        [share * best for share in (0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95)], abs=1
    )
    with Image.open(io.BytesIO(file.read_bytes())) as image:
        assert image.width > 800


@pytest.mark.parametrize("form", ["jsonl", "json"])
def test_sweep_as_json(server: ScriptedServer, capsys: Capture, tmp_path: Path, form: str) -> None:
    file = tmp_path / "latency.svg"
    sweep(server.address, "--plot", str(file), "--format", form)
    out = capsys.readouterr().out
    found = json.loads(out) if form == "json" else [json.loads(line) for line in out.splitlines()]
    assert [each["share"] for each in found] == [None, 0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95]
    assert [each["loop"] for each in found] == ["closed", *["open"] * 7]
    assert file.read_text().startswith("<?xml")


def test_plot_without_matplotlib_says_what_to_install(
    server: ScriptedServer, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convserve_bench.plot.find_spec", lambda _: None)
    assert bench(server.address, "--sweep", "--plot", "a.svg") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "Matplotlib, which is not here: pip install" in line
    assert server.requests == []


@BOTH
def test_interrupt_prints_what_there_is(
    server: ScriptedServer, sent: signal.Signals, status: int
) -> None:
    command = [*PROGRAM, "bench", server.address, "--seconds", "3600", "--warm-up", "0"]
    with Program[bytes](command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        for _ in range(500):
            assert server.answered.acquire(timeout=PATIENCE_S)
        running.send_signal(sent)
        out, err = running.communicate(timeout=PATIENCE_S)
    assert (running.returncode, err) == (status, b"")
    assert out.decode().splitlines()[-1].startswith("answered")


def test_interrupt_before_anything_was_measured_prints_nothing(server: ScriptedServer) -> None:
    command = [*PROGRAM, "bench", server.address, "--seconds", "3600", "--warm-up", "3600"]
    with Program[bytes](command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        for _ in range(100):
            assert server.answered.acquire(timeout=PATIENCE_S)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=PATIENCE_S)
    assert (running.returncode, out, err) == (130, b"", b"")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--callers", "0"], "argument --callers: expected an integer of 1 to 10000, got '0'"),
        (
            ["--connections", "x"],
            "argument --connections: expected an integer of 1 to 256, got 'x'",
        ),
        (["--images", "4097"], "argument --images: expected an integer of 1 to 4096, got '4097'"),
        (
            ["--rate", "nan"],
            "argument --rate: expected calls a second above 0, at most 1000000, got 'nan'",
        ),
        (
            ["--rate", "0"],
            "argument --rate: expected calls a second above 0, at most 1000000, got '0'",
        ),
        (
            ["--seconds", "0"],
            "argument --seconds: expected seconds above 0, at most 86400, got '0'",
        ),
        (["--warm-up", "-1"], "argument --warm-up: expected seconds of 0 to 3600, got '-1'"),
        (["--timeout", "0"], "argument --timeout: expected seconds above 0, got '0'"),
        (
            ["--plot", "a.gif", "--sweep"],
            "argument --plot: expected a name that ends in .png or .svg, got 'a.gif'",
        ),
        (
            ["--plot", "a.png"],
            "argument --plot: expected --sweep beside it, got 'a.png' alone",
        ),
        (["--sweep", "--rate", "5"], "argument --rate: expected none beside --sweep, got 5"),
        (["--pixels", "--pictures", "."], "not allowed with argument --pixels"),
    ],
)
def test_bad_options_are_refused_before_any_call(
    server: ScriptedServer, capsys: Capture, flags: list[str], message: str
) -> None:
    try:
        status = main(["bench", server.address, *flags])
    except SystemExit as exit_:
        status = int(str(exit_.code))
    assert status == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert server.lists == 0


def test_address_without_a_port_is_refused(capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "gpu1"])
    assert "HOST:PORT" in capsys.readouterr().err
    assert main(["bench", "unix:/tmp/a-socket"]) == 1
    assert "expected HOST:PORT for bench" in capsys.readouterr().err


@pytest.mark.parametrize("how", [["--server"], []])
def test_server_is_named_as_in_the_other_commands_or_as_the_first_argument(
    server: ScriptedServer, capsys: Capture, monkeypatch: pytest.MonkeyPatch, how: list[str]
) -> None:
    monkeypatch.setenv("CONVSERVE_SERVER", "127.0.0.1:1")
    assert bench(*how, server.address, "--format", "jsonl") == 0
    assert result_of(capsys)["server"] == server.address


def test_server_that_is_named_twice_is_wrong_usage(capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "--server", "a:1", "b:2"])
    assert "HOST:PORT: not allowed with argument --server" in capsys.readouterr().err


def test_several_models_must_be_named(server: ScriptedServer, capsys: Capture) -> None:
    server.models = [model("mnist"), model("letters")]
    assert bench(server.address) == 1
    assert "since 2 loaded models fit made-up images: mnist (digits," in capsys.readouterr().err


def test_model_of_photographs_is_meant_by_a_folder_of_jpegs(
    server: ScriptedServer, capsys: Capture, tmp_path: Path
) -> None:
    photo, pixels = bundle_pb2.IMAGE_KIND_PHOTO, bundle_pb2.IMAGE_KIND_PIXELS
    server.models = [model("shoes", kind=pixels), model("ten", kind=photo)]
    (tmp_path / "a.jpg").write_bytes(jpeg_of("red"))
    assert bench(server.address, "--pictures", str(tmp_path), "--format", "jsonl") == 0
    assert result_of(capsys)["model"] == "ten/1"


def test_nobody_there_is_one_line(capsys: Capture) -> None:
    with reserved_address() as address:
        assert bench(address, "--timeout", "1") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"convserve: cannot connect to {address}")


def test_file_that_the_server_cannot_use_is_named(
    server: ScriptedServer, capsys: Capture, tmp_path: Path
) -> None:
    server.models = [model("ten", kind=bundle_pb2.IMAGE_KIND_PHOTO)]
    (tmp_path / "a.jpg").write_bytes(b"whole")
    (tmp_path / "b.jpg").write_bytes(b"broken off")
    for images in ("1", "2"):
        assert bench(server.address, "--pictures", str(tmp_path), "--images", images) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"convserve: --pictures: {tmp_path / 'b.jpg'}: the JPEG is")


def test_folder_without_pictures_is_named(
    server: ScriptedServer, capsys: Capture, tmp_path: Path
) -> None:
    assert bench(server.address, "--pictures", str(tmp_path)) == 1
    assert f"--pictures: {tmp_path}: no pictures" in capsys.readouterr().err


def test_server_that_answers_wrongly_is_given_no_load(
    server: ScriptedServer, capsys: Capture
) -> None:
    def doubtful(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        reply = answer(request)
        reply.results[0].prediction.probabilities[0] += 1
        return reply

    server.answer = doubtful
    assert bench(server.address) == 1
    assert "sum to 2, not to 1" in capsys.readouterr().err
    assert len(server.requests) == 1


def test_load_generator_without_its_extra_says_what_to_install(
    server: ScriptedServer, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("convserve_bench")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "hpack", None)
    assert bench(server.address) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "convserve: hpack is not installed; run: pip install 'convserve[bench]'"
    assert server.requests == []


def test_help_and_health_bring_none_of_it() -> None:
    program = (
        "import sys\nfrom convserve.main import main\n"
        "try:\n    main(['bench', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted(set(sys.modules) & {'numpy', 'grpc', 'convserve_bench.generator', 'hpack'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "convserve bench --server localhost:50051 --callers 64" in done.stdout
