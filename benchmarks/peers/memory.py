"""Memory of processes that share much of it. Source: proc_pid_smaps(5), Pss."""

from pathlib import Path

from benchmarks.processes import process_tree


def proportional_bytes(root: int) -> int:
    """Memory of a process and all below it; what n processes map counts 1/n for each."""
    return sum(_proportional_bytes(pid) for pid in process_tree(root))


def _proportional_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):  # ended while we looked
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
