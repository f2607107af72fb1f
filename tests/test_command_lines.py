"""What the programs have in common on the command line."""

import argparse
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

import convserve.command.options
import convserve.main
import convserve_scoring.command_line
import convserve_scoring.main
import convserve_server.main
import convserve_server.settings.command_line
import convserve_trainer.cli.parser
import convserve_trainer.main
from tests.bundles import write_bundle
from tests.clients.scripted_server import ScriptedServer

Main = Callable[[list[str]], int]
Parser = argparse.ArgumentParser

PROGRAMS: dict[str, tuple[Main, Callable[[], Parser]]] = {
    "convserve": (convserve.main.main, convserve.command.options.parser),
    "convserve-score": (convserve_scoring.main.main, convserve_scoring.command_line.parser),
    "convserve-serve": (convserve_server.main.main, convserve_server.settings.command_line.parser),
    "convserve-train": (convserve_trainer.main.main, convserve_trainer.cli.parser.parser),
}


def status_of(program: str, *arguments: str) -> object:
    try:
        return PROGRAMS[program][0]([*arguments])
    except SystemExit as exit_:
        return exit_.code


def parsers(parser: Parser) -> Iterator[Parser]:
    """Yields a parser and those of its subcommands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from parsers(each)


@pytest.mark.parametrize("flag", ["-V", "--version"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_version_is_printed_by_the_program(
    program: str, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(program, flag) == 0
    assert capsys.readouterr().out == f"{program} {version('convserve')}\n"


@pytest.mark.parametrize("program", PROGRAMS)
def test_shortened_options_are_taken_nowhere(program: str) -> None:
    assert [each.prog for each in parsers(PROGRAMS[program][1]()) if each.allow_abbrev] == []


@pytest.mark.parametrize(
    "command",
    [
        "convserve classify none.png",
        "convserve classify none/",
        "convserve evaluate none",
        "convserve bench --pictures none",
        "convserve-serve --models none",
        "convserve-serve --models models --config none.toml",
        "convserve-train check-data none",
        "convserve-train compare none none",
        "convserve-train convert none --precision int8",
        "convserve-train evaluate none",
        "convserve-train evaluate models/mnist --data none",
        "convserve-train explain kernels none",
        "convserve-train fit digits --data none",
        "convserve-train fit photos --data none",
        "convserve-train fit digits --recipe none.toml",
        "convserve-train inspect none",
        "convserve-train lecture none",
        "convserve-train sweep digits --space none.toml --study study",
    ],
)
def test_input_that_is_not_there_ends_with_2(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_bundle(tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    program, *arguments = command.split()
    if program != "convserve":
        assert status_of(program, *arguments) == 2
    else:
        server = ScriptedServer()
        try:
            assert status_of(program, *arguments, "--server", server.address) == 2
        finally:
            server.stop()
        assert not server.requests
    printed = capsys.readouterr()
    assert "none" in printed.out + printed.err


def test_files_beside_a_missing_one_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    server = ScriptedServer()
    try:
        Path("empty.png").write_bytes(b"")
        arguments = ["classify", "--server", server.address]
        assert status_of("convserve", *arguments, "empty.png") == 1
        assert status_of("convserve", *arguments, "empty.png", "none.png") == 2
    finally:
        server.stop()
    assert "the file is empty" in capsys.readouterr().out
