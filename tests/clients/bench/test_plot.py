import datetime
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from convserve_bench import plot
from convserve_bench.generator import Calls
from convserve_bench.histogram import Histogram
from convserve_bench.load import Load
from convserve_bench.measured import Measured
from convserve_bench.sweep import Step
from convserve_bench.tally import Failures
from convserve_bench.transport import Address
from convserve_bench.workload import Workload

LOAD = Load(callers=8, connections=2, seconds=3.0, warm_up_s=0.5, timeout_s=10.0)
ASKED = Workload(Calls(Address(0, ("", 0)), [], []), "mnist/1", "random pixels", 1, 784.0, 50)
WHEN = datetime.date(2026, 3, 4)


def step(share: float | None, late: int = 0, unsent: int = 0) -> Step:
    latencies = Histogram()
    latencies.add([0.002] * 100)
    load = replace(LOAD, rate=None if share is None else 1000 * share)
    measured = Measured(
        load, 1, 3.0, 1000.0, latencies, Failures(), None, 10.0, 0.5, unsent, 0, late, 100, 0, ""
    )
    return Step(share, measured)


STEPS = [step(None), step(0.5), step(0.8, late=2), step(0.9, unsent=2), step(0.95, late=1)]


def test_points_whose_calls_were_late_are_crossed_out() -> None:
    axes = Figure().subplots()
    plot.draw(axes, STEPS, ASKED, "gpu1:50051")
    labels = {str(line.get_label()): line for line in axes.get_lines()}
    crossed = labels["invalid: calls sent late"]
    assert np.unique(crossed.get_xdata()).tolist() == [800.0, 900.0]
    assert np.size(crossed.get_xdata()) == 2 * 3
    assert np.size(labels["p99"].get_xdata()) == 4


def test_nothing_is_crossed_out_where_all_were_on_time() -> None:
    axes = Figure().subplots()
    plot.draw(axes, [step(None), step(0.5, late=1)], ASKED, "gpu1:50051")
    assert "invalid: calls sent late" not in {str(each.get_label()) for each in axes.get_lines()}


def test_server_date_and_settings_are_on_the_plot(tmp_path: Path) -> None:
    file = tmp_path / "latency.svg"
    plot.write(str(file), STEPS, ASKED, "gpu1:50051", WHEN)
    # The letters are outlines; Matplotlib has what they say beside them.
    drawn = file.read_text()
    assert "gpu1:50051, 2026-03-04; 8 callers, 2 connections, 3 s a point after 0.5 s" in drawn
    assert "invalid: calls sent late" in drawn
