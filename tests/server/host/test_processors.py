"""The names of what computes on a machine."""

from pathlib import Path

from convserve_server.host.processors import processors


def test_cpus_and_gpus_are_named_once_each(tmp_path: Path) -> None:
    cpus, gpus = tmp_path / "cpuinfo", tmp_path / "gpus"
    cpus.write_text(
        "processor\t: 0\nmodel name\t: AMD EPYC\n\nprocessor\t: 1\nmodel name\t: AMD EPYC\n"
    )
    for number, name in enumerate(("NVIDIA H100 PCIe", "H100 PCIe", "Tesla T4")):
        (gpus / f"{number}").mkdir(parents=True)
        (gpus / f"{number}" / "information").write_text(f"Model: \t\t {name}\nIRQ:   \t 7\n")
    assert processors(cpus, gpus) == "AMD EPYC, NVIDIA H100 PCIe, NVIDIA Tesla T4"


def test_machine_without_such_files_has_a_name(tmp_path: Path) -> None:
    assert processors(tmp_path / "none", tmp_path / "none")
