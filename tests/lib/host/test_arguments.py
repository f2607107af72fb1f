import argparse
import subprocess
import sys
from collections.abc import Sequence

import pytest

from convserve_host.arguments import SHELLS, ArgumentParser, add_print_completion, did_you_mean


def program() -> ArgumentParser:
    parser = ArgumentParser(prog="program")
    parser.add_argument("--verbose", action="store_true")
    add_print_completion(parser)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    classify = commands.add_parser("classify", help="classify images")
    classify.add_argument("files", metavar="PATH", nargs="+", help="images")
    classify.add_argument("--top-k", type=int, help="classes")
    classify.add_argument("--format", choices=("table", "jsonl"), help="of the output")
    commands.add_parser("models", help="list the models")
    return parser


def printed(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        program().parse_args(arguments)
    assert exit_.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "start", "meant"),
    [
        (["classfy", "a.png"], "program: error: argument COMMAND: invalid choice: ", "classify"),
        (["classify", "a.png", "--format=json"], "program classify: error: argument --f", "jsonl"),
        (["classify", "--top-kk", "3"], "program classify: error: unrecognized arg", "--top-k"),
        (["classify", "a", "--topk=3"], "program classify: error: unrecognized arg", "--top-k"),
        (["classify", "--frmat=x"], "program classify: error: the following arg", "--format"),
        (["--verbos", "models"], "program: error: unrecognized arguments: --verbos", "--verbose"),
    ],
)
def test_misspelt_name_is_answered_with_the_near_one(
    arguments: list[str], start: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = printed(arguments, capsys)
    assert line.startswith(start)
    assert line.endswith(f" (did you mean {meant}?)")


@pytest.mark.parametrize(
    ("arguments", "who"),
    [
        (["xyzzy"], "program"),
        (["--xyzzy", "models"], "program"),
        (["models", "--xyzzy"], "program models"),
        (["models", "classfy"], "program models"),
        (["models", "-x"], "program models"),
        # --verbose is an option of the program, not of a command, nor behind one.
        (["models", "--verbos"], "program models"),
        (["xyzzy", "--verbos"], "program"),
    ],
)
def test_name_that_is_near_no_other_has_no_suggestion(
    arguments: list[str], who: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = printed(arguments, capsys)
    assert line.startswith(f"{who}: error: ")
    assert "did you mean" not in line


def test_options_cannot_be_shortened_in_subcommands_either(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "unrecognized arguments: --verb" in printed(["--verb", "models"], capsys)
    assert "unrecognized arguments: --top" in printed(["classify", "a", "--top", "3"], capsys)


def test_right_arguments_are_parsed_as_argparse_does() -> None:
    expected = argparse.Namespace(
        verbose=True, print_completion=None, files=["a"], top_k=3, format=None
    )
    parsed = program().parse_args(["--verbose", "classify", "a", "--top-k", "3"])
    assert {**vars(parsed)} == vars(expected)


def test_did_you_mean_names_one_near_name() -> None:
    assert did_you_mean("max_bach", ["max_batch", "max_queue"]) == " (did you mean max_batch?)"
    assert did_you_mean("xyzzy", ["max_batch"]) == ""


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_script_names_commands_and_options(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        program().parse_args(["--print-completion", shell])
    assert exit_.value.code == 0
    script = capsys.readouterr().out
    assert "classify" in script
    assert "top-k" in script


@pytest.mark.parametrize(
    ("typed", "found"),
    [("cla", "classify"), ("classify --top", "--top-k"), ("classify te", "tests")],
)
def test_bash_completes_commands_options_and_files(typed: str, found: str) -> None:
    script = (
        "from tests.lib.host.test_arguments import program\n"
        "program().parse_args(['--print-completion', 'bash'])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    words = typed.split()
    ask = (
        f"COMP_WORDS=(program {typed}); COMP_CWORD={len(words)};"
        f" _shtab_program program {words[-1]}; echo ${{COMPREPLY[@]}}"
    )
    done = subprocess.run(
        ["bash", "-c", f"{printed.stdout}\n{ask}"], check=True, capture_output=True, text=True
    )
    assert done.stdout.split()[0].rstrip("/") == found


def test_completion_library_is_imported_only_to_print() -> None:
    script = (
        "import sys; from tests.lib.host.test_arguments import program;"
        "program().parse_args(['models']); print('shtab' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert done.stdout.strip() == b"False"
