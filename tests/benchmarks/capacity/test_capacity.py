"""What a load needs: the arithmetic, where its figures are from, and the page that shows it."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.capacity.estimate import Load, Machine, cores_of_a_host, estimate, once
from benchmarks.capacity.figures import Figure, read_figures
from tests.bundles import write_bundle, write_photo_bundle

ROOT = Path(__file__).parents[3]
FIGURES = read_figures()
LOAD = Load(
    name="test", rate=64_000, images=64, cpu_us=5000, sent=1e6, received=1e3, host_rate=40_000,
    envoy_us=1000,
)  # fmt: skip


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True, text=True, cwd=ROOT, timeout=200, check=False,
    )  # fmt: skip


def test_estimate_counts_calls_and_leaves_machines_time() -> None:
    # 1000 calls/s at 5 ms are 5 cores; of 4 cores half of the time, so 2.5 machines.
    need = estimate(LOAD, Machine(cores=4, share=0.5))
    assert need.busy == pytest.approx(5)
    # Envoy needs a core, of the two that a machine may use.
    assert (need.machines, need.envoys, need.hosts) == (3, 1, 4)
    assert (need.sent, need.received) == pytest.approx((1e9, 1e6))


def test_once_counts_hours() -> None:
    need = once(64 * 3_600_000, LOAD)
    assert need.core_hours == pytest.approx(5)
    assert need.host_hours == pytest.approx(1.6)
    assert (need.sent, need.received) == pytest.approx((3.6e12, 3.6e9))


def test_cores_of_a_host() -> None:
    assert cores_of_a_host(LOAD) == pytest.approx(40_000 / 64 * 5e-3)


def cell(figure: Figure) -> str:
    """The cell that a figure is from: of the first table behind its command that has the column."""
    text = (ROOT / figure.page).read_text()
    _, found, behind = text.partition(figure.command)
    assert found, f"{figure.page} has no command {figure.command}"
    column = None
    for line in behind.splitlines():
        cells = [one.strip() for one in line.strip("|").split("|")]
        if figure.column in cells:
            column = cells.index(figure.column)
        elif column is not None and cells[: len(figure.row)] == list(figure.row):
            return cells[column]
    raise AssertionError(f"{figure.page} has no row {figure.row} behind {figure.command}")


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_the_cell_that_it_names(name: str) -> None:
    figure = FIGURES[name]
    assert float(cell(figure).partition(" ")[0].replace(",", "")) == figure.value


def test_page_shows_what_the_command_prints() -> None:
    page = (ROOT / "docs/capacity.md").read_text()
    shown = page.partition("<!-- printed -->\n\n")[2].partition("\n<!-- /printed -->")[0]
    done = run("benchmarks.capacity")
    assert done.stderr == ""
    assert shown == done.stdout


def test_own_figures_give_their_line() -> None:
    flags = "--rate 64000 --images 64 --cpu-us 5000 --sent 1e6 --received 1e3"
    done = run("benchmarks.capacity", *flags.split(), "--cores", "4", "--share", "0.5")
    assert "| 64,000 images/s, 64 a call | 5 | 3 |  |  | 1.0 GB/s | 1.0 MB/s |" in done.stdout
    more = ["--host-rate", "40000", "--envoy-us", "10000"]
    done = run("benchmarks.capacity", *flags.split(), *more)
    assert "| 64,000 images/s, 64 a call | 5 | 1 | 2 | 3 | 1.0 GB/s | 1.0 MB/s |" in done.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rate", "5"], "--images: expected a number beside --rate, got none"),
        (["--share", "2"], "--share: expected a number above 0 and up to 1, got '2'"),
        (["--rate", "many"], "--rate: expected a number above 0, got 'many'"),
        (["--rate", "0"], "--rate: expected a number above 0, got '0'"),
    ],
)
def test_wrong_options_are_named(flags: list[str], message: str) -> None:
    done = run("benchmarks.capacity", *flags)
    assert done.returncode != 0
    assert message in done.stderr


def test_bytes_of_calls_are_counted(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    write_photo_bundle(tmp_path)
    done = run("benchmarks.capacity.call_bytes", "--models", str(tmp_path), "--calls", "10")
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if "| 10 |" in line]
    assert len(rows) == 3, done.stderr
    for _, _, images, sent, received in rows:
        # Field names, lengths and frames: some hundred bytes at most.
        assert int(images) < int(sent) < int(images) + 400
        assert int(received) > 0
