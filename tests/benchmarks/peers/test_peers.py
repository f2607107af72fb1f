import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.harness.bundles import Bundle
from benchmarks.harness.command import BenchmarkError
from benchmarks.harness.table import CELLS
from benchmarks.harness.wire_formats import ConvserveV1
from benchmarks.peers import __main__ as command
from benchmarks.peers.environments import Environment, NotInstalled, pinned
from benchmarks.peers.measurement import Record, Refusal
from benchmarks.peers.registry import CHOICES, Peer, peers
from benchmarks.peers.tables import figures, refusals
from tests.benchmarks.tables import cells_of, figures_of, tables_of
from tests.bundles import write_bundle

ROOT = Path(__file__).parents[3]
COMMAND = (sys.executable, "-m", "benchmarks.peers")
OURS = ("naive", "convserve, grpcio", "convserve, native")
WAIT_S = 250.0
COLUMNS = 11


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_bundle(folder)
    return folder


def quick(models: Path, only: str) -> list[str]:
    options = ["--models", str(models), "--only", only, "--rounds", "1"]
    return [*options, "--seconds", "0.4", "--driver", "own"]


def done(options: Sequence[str], **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *options], cwd=ROOT, env={**os.environ, **more}, capture_output=True, text=True,
        timeout=WAIT_S,
    )  # fmt: skip


def test_command_prints_figures_and_refusals(models: Path, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    ended = done([*quick(models, "naive,convserve"), "--json", str(file)])
    assert ended.returncode == 0, ended.stderr
    heading = ended.stdout.splitlines()[0]
    assert "rounds x seconds: 1 x 0.4" in heading
    assert re.search(r"load average before \d+\.\d, after \d+\.\d", heading)
    measured, refused = tables_of(ended.stdout)
    assert [row[:4] for row in measured] == [
        [str(cell.callers), str(cell.images), name, ConvserveV1("").title]
        for cell in CELLS
        for name in OURS
    ]
    for row in measured:
        assert len(row) == COLUMNS
        found = figures_of(row[4:])
        assert len(found) == 11
        assert min(found) > 0, row
    ratios = [row[-1] for row in measured]
    assert ratios[:: len(OURS)] == ["1.00 (1.00)"] * len(CELLS)
    assert [row[:3] for row in refused] == [
        ["naive", "[1, 27, 28, 1]", "UNKNOWN"],
        ["convserve, grpcio", "[1, 27, 28, 1]", "INVALID_ARGUMENT"],
        ["convserve, native", "[1, 27, 28, 1]", "INVALID_ARGUMENT"],
    ]
    assert "pixels.height" in refused[1][3]
    servers = json.loads(file.read_text())["servers"]
    assert [len(one["measurements"]) for one in servers] == [len(CELLS)] * len(OURS)


def test_peers_that_cannot_be_had_are_rows(models: Path, tmp_path: Path) -> None:
    options = [*quick(models, "naive,triton,litserve"), "--environments", str(tmp_path)]
    ended = done(options, PIP_NO_INDEX="1", PIP_CONFIG_FILE=os.devnull, PIP_FIND_LINKS="")
    assert ended.returncode == 0, ended.stderr
    measured, refused = tables_of(ended.stdout)
    assert len(measured) == len(CELLS) + 2
    triton, last = measured[-2:]
    assert triton[2:5] == [
        "Triton",
        "gRPC, Open Inference, bytes",
        "left out: there is no --tritonserver DIR",
    ]
    assert last[:3] == ["-", "-", "LitServe"]
    assert last[4].startswith("not installed: Could not find a version that satisfies")
    assert last[5:] == ["-"] * (COLUMNS - 5)
    assert [row[0] for row in refused] == ["naive"]
    version = pinned(ROOT / "benchmarks/peers/servers/litserve.txt")["litserve"]
    assert f"litserve {version}" in ended.stdout.splitlines()[0]


@pytest.fixture
def tritonserver(tmp_path: Path) -> Path:
    """An installation of Triton whose program is our stand-in."""
    folder = tmp_path / "tritonserver"
    (folder / "backends/onnxruntime").mkdir(parents=True)
    program = folder / "bin/tritonserver"
    program.parent.mkdir()
    stand_in = f"exec {sys.executable} -m tests.benchmarks.peers.stand_in_triton"
    program.write_text(f'#!/bin/sh\n{stand_in} --installation {folder} "$@"\n')
    program.chmod(0o755)
    (folder / "TRITON_VERSION").write_text("2.51.0\n")
    return folder


def test_triton_is_measured_in_four_settings(models: Path, tritonserver: Path) -> None:
    ended = done([*quick(models, "triton"), "--tritonserver", str(tritonserver)])
    assert ended.returncode == 0, ended.stderr
    measured, refused = tables_of(ended.stdout)
    names = [
        f"Triton, {many}, {delay} ms" for many in ("1 instance", "2 instances") for delay in (0, 1)
    ]
    assert [row[2] for row in measured] == names * len(CELLS)
    assert {row[3] for row in measured} == {"gRPC, Open Inference, bytes"}
    assert "triton 2.51.0" in ended.stdout.splitlines()[0]
    assert refused[-1][:3] == [names[-1], "[1, 27, 28, 1]", "INVALID_ARGUMENT"]


def test_folder_without_triton_is_refused_in_one_line(tritonserver: Path) -> None:
    (tritonserver / "backends/onnxruntime").rmdir()
    ended = done(["--tritonserver", str(tritonserver)])
    assert ended.returncode == 2
    error = ended.stderr.splitlines()[-1]
    assert error.endswith(f"expected a folder with backends/onnxruntime, got {tritonserver}")


def test_unknown_peer_is_refused_in_one_line() -> None:
    ended = done(["--only", "naive,seldon"])
    assert ended.returncode == 2
    error = ended.stderr.splitlines()[-1]
    assert error.endswith(f"argument --only: 'seldon' is none of {', '.join(CHOICES)}")


@dataclass(frozen=True)
class Doubting(ConvserveV1):
    """Takes every answer for another one."""

    def rows(self, answer: bytes) -> NDArray[np.float32]:
        return super().rows(answer) + np.float32(2e-5)


def test_wrong_answer_is_a_row_and_a_failure(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def all_(_bundle: Bundle, _flags: str, _tritonserver: Path | None) -> list[Peer]:
        return [
            Peer("doubted", "naive", Doubting("mnist")),
            Peer("naive", "naive", ConvserveV1("mnist")),
        ]

    monkeypatch.setattr(command, "peers", all_)
    arguments = command._parser().parse_args(quick(models, "naive"))
    with pytest.raises(BenchmarkError, match="failed: doubted"):
        command.run(arguments)
    measured, refused = tables_of(capsys.readouterr().out)
    assert [row[2] for row in measured] == ["naive"] * len(CELLS) + ["doubted"]
    assert "before any load: probabilities differ from ONNX Runtime's by 2e-05" in measured[-1][4]
    assert [row[0] for row in refused] == ["naive"]


def test_ratios_without_the_baseline_are_not_shown(models: Path) -> None:
    ended = done(quick(models, "naive-asyncio"))
    assert ended.returncode == 0, ended.stderr
    measured, _ = tables_of(ended.stdout)
    assert [row[-1] for row in measured] == ["-"] * len(CELLS)


def test_long_messages_stay_in_their_cell() -> None:
    record = Record("Ray Serve", "gRPC")
    record.refusal = Refusal("[1]", "INTERNAL", "\x1b[36mray\x1b[39m:\n a | b " + "x" * 200)
    line = refusals([record]).splitlines()[2]
    message = line.split(" | ", 3)[3].removesuffix(" |")
    assert message.startswith("ray: a \\| b xxx")
    assert message.endswith("x…")
    assert len(message.replace("\\|", "|")) == 120
    failed = Record("mine", "gRPC", failure="not\ninstalled")
    header, _, row = map(cells_of, figures([failed]).splitlines())
    assert len(header) == len(row) == COLUMNS
    assert row[4] == "not installed"
    assert len(refusals([failed]).splitlines()) == 2


def test_requirements_are_pinned_and_of_one_onnxruntime(models: Path) -> None:
    files = {
        peer.choice: peer.requirements
        for peer in peers(Bundle.newest(models, "mnist"))
        if peer.requirements is not None
    }
    assert set(files) == {"mosec", "mlserver", "litserve", "bentoml", "ray"}
    assert {file.name for file in files.values()} == {
        file.name for file in (ROOT / "benchmarks/peers/servers").glob("*.txt")
    }
    for choice, file in files.items():
        lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
        loose = [line for line in lines if not re.fullmatch(r"[\w.\-\[\]]+==[\w.]+", line)]
        assert loose == [], file.name
        assert choice in pinned(file)
    assert len({pinned(file)["onnxruntime"] for file in files.values()}) == 1


def test_environment_is_made_once_for_its_requirements(tmp_path: Path) -> None:
    requirements = tmp_path / "none.txt"
    requirements.write_text("--no-index\n")
    environment = Environment(tmp_path / "environment", requirements)
    environment.make()
    prefix = subprocess.check_output([environment.python, "-c", "import sys; print(sys.prefix)"])
    assert prefix.decode().strip() == str(tmp_path / "environment")
    mark = tmp_path / "environment" / "mark"
    mark.touch()
    environment.make()
    assert mark.exists(), "made again for nothing"
    requirements.write_text("--no-index\nimpossible==0\n")
    with pytest.raises(NotInstalled, match="^Could not find .*impossible==0.*$"):
        environment.make()
    assert not mark.exists(), "not made anew"
    assert not [*environment.folder.glob("*.txt")], "taken for installed"
