import json
import subprocess
import sys
from pathlib import Path

from benchmarks.attacks import attacks
from benchmarks.hostile import Guard
from benchmarks.servers import FRONTS
from tests.benchmarks.tables import figures_of, tables_of
from tests.bundles import write_bundle
from tests.program import Program

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "benchmarks.hostile")


def test_command_prints_a_row_for_each_attack_and_front(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    file, only = tmp_path / "figures.json", "a message of 64 MiB"
    options = ["--models", str(tmp_path / "models"), "--only", only, "--json", str(file)]
    done = subprocess.run([*COMMAND, *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (table,) = tables_of(done.stdout)
    names = [each.name for each in attacks(2**24) if only in each.name]
    assert [row[:2] for row in table] == [[name, front] for name in names for front in FRONTS]
    for row in table:
        sent, rest, most, lost, answered, failed, rate, _ = figures_of(row[2:])
        assert sent > 0
        assert most >= rest > 0
        assert (lost, failed) == (0, 0)
        assert answered > 0
        assert rate > 0
    grpcio, native = json.loads(file.read_text())["harms"]
    # One refuses by the length, the other when it has all.
    assert grpcio["sent_mib"] < 32 < 64 <= native["sent_mib"]
    assert native["most_mib"] - native["rest_mib"] > grpcio["most_mib"] - grpcio["rest_mib"]


def test_command_without_such_an_attack_says_so(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    options = ["--models", str(tmp_path / "models"), "--only", "teapots"]
    done = subprocess.run([*COMMAND, *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "python -m benchmarks.hostile: --only: no attack has 'teapots' in its name\n"
    )


def test_server_that_takes_too_much_is_killed() -> None:
    code = "import sys; kept = b'x' * 2**24; print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code]
    with Program[bytes](command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        allowed, denied = Guard(server.pid), Guard(server.pid, too_much=2**20)
        with allowed.watching(), denied.watching():
            status = server.wait(20)
    assert (allowed.killed, denied.killed) == (False, True)
    assert status == -9
    assert denied.most > 2**24
