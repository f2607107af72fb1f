"""A real Prometheus with the configuration and rules of deploy/monitoring, on a free port."""

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.monitoring.queries import Api
from tests.program import Program

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
CONFIG = (MONITORING / "prometheus.yml").read_text()

WAIT_S = 60.0


@contextmanager
def prometheus(
    folder: Path, *targets: str, labels: Mapping[str, str] | None = None
) -> Iterator[Api]:
    """Runs one that reads the pages of servers more often than anybody would want.

    Args:
        folder: for its configuration and its data.
        targets: HOST:PORT of the pages; there is no DNS for the name that the configuration has.
        labels: that their series get, as those of a cluster do.
    """
    shutil.copytree(MONITORING / "rules", folder / "rules")
    (folder / "prometheus.yml").write_text(for_test(CONFIG, targets, labels or {}))
    command = [
        *("prometheus", f"--config.file={folder / 'prometheus.yml'}", "--log.format=json"),
        *(f"--storage.tsdb.path={folder / 'data'}", "--web.listen-address=127.0.0.1:0"),
    ]
    with Program[str](command, stderr=subprocess.PIPE, text=True) as program:
        try:
            yield Api(f"http://{_address(program)}")
        finally:
            program.terminate()


def for_test(config: str, targets: tuple[str, ...], labels: Mapping[str, str]) -> str:
    """Returns a configuration with targets in place of a name, and with short intervals."""
    head, _, block = config.partition("    dns_sd_configs:\n")
    assert all(line.startswith("      ") for line in block.splitlines()), "more than one block"
    for setting in ("scrape_interval: 5s", "scrape_timeout: 4s", "evaluation_interval: 15s"):
        assert setting in head
        head = head.replace(setting, f"{setting.partition(':')[0]}: 500ms")
    static = {"targets": targets, "labels": dict(labels)}
    return f"{head}    static_configs: [{json.dumps(static)}]\n"


def _address(program: Program[str]) -> str:
    """Returns where it listens, when it is ready; what it logs is read to the end."""
    assert program.stderr is not None
    address, log = "", []
    for line in program.stderr:
        log.append(line)
        entry = json.loads(line)
        message = entry.get("msg", "")
        if message == "Listening on":
            address = entry["address"]
        if message.startswith("Server is ready"):
            threading.Thread(target=program.stderr.read, daemon=True).start()
            return address
    raise AssertionError(f"Prometheus has ended: {''.join(log)}")


def until(condition: Callable[[], bool], what: str) -> None:
    """Waits until a condition is true.

    Raises:
        AssertionError: It never is.
    """
    end_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end_s, f"not within {WAIT_S:g} s: {what}"
        time.sleep(0.1)
