import io
import json
import re
import subprocess
import sys
from pathlib import Path

from PIL import Image

from benchmarks.harness.expensive_files import (
    EMPTY_COMMENT,
    EMPTY_TABLE,
    FILL_BYTE,
    RESTART,
    Colours,
    arithmetic_coded_empty,
    jpeg_after,
    png,
)
from benchmarks.harness.memory import MemoryWatch
from benchmarks.harness.servers import FRONTS
from benchmarks.robustness.attacks import attacks
from benchmarks.robustness.http_attacks import http_attacks
from benchmarks.robustness.picture_attacks import Kind, picture_attacks
from convserve_protos import bundle_pb2
from tests.benchmarks.tables import figures_of, tables_of
from tests.bundles import write_bundle
from tests.program import Program

ROOT = Path(__file__).parents[3]
COMMAND = (sys.executable, "-m", "benchmarks.robustness.abuse")


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
        sent, rest, most, allowed, lost, cpu_s = figures_of(row[2:8])
        calls, answered, p99_ms, longest_ms = figures_of(row[9:])
        assert sent > 0
        assert allowed > most >= rest > 0
        assert lost == 0
        assert cpu_s > 0
        assert calls > 50
        assert answered > 0
        assert longest_ms + 1 > p99_ms > 0
        assert re.fullmatch(r"\d+ RESOURCE_EXHAUSTED", row[8])
    # Each refuses by the length, and has no more of it than was on its way.
    for result in json.loads(file.read_text())["results"]:
        assert result["sent_mib"] < 32


def test_each_attack_has_a_name_of_its_own() -> None:
    every = [*attacks(2**24), *http_attacks(2**24)]
    assert len({each.name for each in every}) == len(every) > 30


def test_command_attacks_http_too(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    options = ["--models", str(tmp_path / "models"), "--only", "1,000,000 parts"]
    options += ["--front", "native"]
    done = subprocess.run([*COMMAND, *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (table,) = tables_of(done.stdout)
    (row,) = table
    assert row[1] == "native"
    assert row[8] == "8 400"
    assert figures_of(row[9:11])[1] > 0


def test_expensive_files_are_what_they_claim() -> None:
    for colours, mode in zip(Colours, ("L", "I;16", "RGBA"), strict=True):
        with Image.open(io.BytesIO(png(200, colours))) as picture:
            picture.load()
            assert (picture.mode, picture.size) == (mode, (200, 200))
            assert picture.convert("L" if mode != "I;16" else "I").getextrema()[0] == 0
            assert picture.getpixel((99, 100)) != picture.getpixel((100, 100))
            assert picture.getpixel((0, 0)) == picture.getpixel((199, 199))
    for part in (EMPTY_COMMENT, EMPTY_TABLE, FILL_BYTE, RESTART):
        data = jpeg_after(part, 2**14)
        assert 2**14 - 4 < len(data) <= 2**14
        assert data[2:].startswith(part * 100)
    with Image.open(io.BytesIO(jpeg_after(EMPTY_COMMENT, 2**14))) as picture:
        assert picture.convert("RGB").getpixel((5, 5)) == (9, 9, 9)
    with Image.open(io.BytesIO(arithmetic_coded_empty(64))) as picture:
        assert (picture.mode, picture.size) == ("RGB", (64, 64))
        picture.load()


def test_attacks_are_of_the_models_that_there_are() -> None:
    def names(*kinds: Kind) -> list[str]:
        return [each.name for each in picture_attacks(2**20, {kind: "x" for kind in kinds})]

    (named,) = names()
    assert "name of 10,000 letters" in named
    assert [name.split(",")[0] for name in names(bundle_pb2.IMAGE_KIND_PHOTO)[1:]] == [
        "4 connections"
    ] * 5
    assert [name.split(", ")[-1] for name in names(bundle_pb2.IMAGE_KIND_DIGITS)[1:]] == [
        colours.name for colours in Colours
    ]


def test_attacker_is_answered_and_counted(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    options = ["--models", str(tmp_path / "models"), "--only", "letters"]
    done = subprocess.run([*COMMAND, *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (table,) = tables_of(done.stdout)
    assert len(table) == len(FRONTS)
    for row in table:
        assert re.fullmatch(r"\d+ NOT_FOUND", row[8]), row


def test_command_without_such_an_attack_says_so(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    options = ["--models", str(tmp_path / "models"), "--only", "teapots"]
    done = subprocess.run([*COMMAND, *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "python -m benchmarks.robustness.abuse: --only: no attack has 'teapots' in its name\n"
    )


def test_server_that_uses_too_much_is_killed() -> None:
    code = "import sys; kept = b'x' * 2**24; print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code]
    with Program[bytes](command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        allowed, denied = MemoryWatch(server.pid, 2**31), MemoryWatch(server.pid, 2**20)
        with allowed.watching(), denied.watching():
            status = server.wait(20)
    assert (allowed.killed, denied.killed) == (False, True)
    assert status == -9
    assert denied.most > 2**24
