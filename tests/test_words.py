"""The lint of words sees what it should, where it should, and nothing else."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests import words
from tests.words import check, main, read_words, text_files

LIST = read_words()


def refused(path: str, content: str) -> list[str]:
    return [problem.found for problem in check(path, content, LIST)]


@pytest.mark.parametrize(
    ("sentence", "phrase"),
    [
        ("A dear model has batches of its own.", "dear model"),
        ("PNG and JPEG files are taken.", "are taken"),
        ("At most 8 bits a sample are\ntaken.", "are taken"),
        ("No request has to wait for company.", "company"),
        ("Pixels of the size that the net takes.", "net takes"),
        ("How much a server bears.", "bears"),
        ("Each call gets a room of its own.", "room"),
        ("A worker has a place in the table.", "a place"),
        ("What was said of a version.", "was said"),
        ("The file is no JPEG.", "is no JPEG"),
        ("The connection is cut off.", "cut off"),
        ("The color of a digit.", "color"),
    ],
)
def test_phrase_is_refused_in_pages_comments_docstrings_and_messages(
    sentence: str, phrase: str
) -> None:
    line = " ".join(sentence.split())
    assert refused("docs/page.md", sentence) == [phrase]
    assert refused("a.proto", "\n".join(f"// {part}" for part in sentence.split("\n"))) == [phrase]
    comment = "\n".join(f"    # {part}" for part in sentence.split("\n"))
    assert refused("a.py", f"def run():\n{comment}\n    return 1\n") == [phrase]
    assert refused("a.py", f'"""Runs.\n\n{sentence}\n"""\n') == [phrase]
    if phrase != "color":
        start, end = line.rsplit(maxsplit=1)
        assert refused("a.py", f'raise ValueError(f"{start} "\n    "{end}")\n') == [phrase]


@pytest.mark.parametrize(
    "sentence",
    [
        "Sorted in place, to three decimal places.",
        "Wall time and the wall clock go on.",
        "A placeholder takes the place of it.",
        "The ranges are taken from training pictures.",
        "The version is taken up while the server runs.",
        "The server takes about a second to start.",
        "`dtype said` is the name of an option; so are `color` and `Room`.",
        "`--grey` stands for one channel.",
        "The model is no longer served; there is no other one.",
        "@media (prefers-color-scheme: dark) { a { color: red; text-align: center; } }",
        "Accompany, bearing, bearer, roommate, household, wallpaper, standard.",
    ],
)
def test_ordinary_use_is_allowed(sentence: str) -> None:
    assert refused("docs/page.md", sentence) == []


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("def told(): ...", "told"),
        ("class Room: ...", "Room"),
        ("class _ThreadRooms: ...", "_ThreadRooms"),
        ("free_place = 1", "free_place"),
        ("def run(said): ...", "said"),
        ("self.waits_for_company = 1", "waits_for_company"),
        ("for place in range(3): ...", "place"),
        ("[x for _, place in x]", "place"),
        ("import os as house", "house"),
        ("try: ...\nexcept OSError as said: ...", "said"),
        ("gray: int = 1", "gray"),
        ("with x as dear: ...", "dear"),
    ],
)
def test_word_is_refused_in_a_name_that_code_defines(code: str, name: str) -> None:
    assert refused("a.py", code) == [name]


@pytest.mark.parametrize(
    "code",
    [
        "numpy.place(a, b, c)",
        "axes.plot(x, y, color=ink, ha='center')",
        "wall_time_s = in_place = decimal_places = placeholder = replaced = 1",
        "def test_sort_in_place_of_others(): ...",
        "def understands(beard, wallet): ...",
    ],
)
def test_names_of_others_and_ordinary_names_are_allowed(code: str) -> None:
    assert refused("a.py", code) == []


@pytest.mark.parametrize(
    ("path", "word"), [("server/rooms/base.py", "rooms"), ("tests/test_walls.py", "test_walls.py")]
)
def test_word_is_refused_in_names_of_files_and_folders(path: str, word: str) -> None:
    assert refused(path, "") == [word]


def test_phrase_does_not_reach_across_code() -> None:
    assert refused("a.py", "x = 1  # where they are\ny = 2  # taken\n") == []


def test_message_names_file_line_phrase_and_what_to_write() -> None:
    [problem] = check("docs/page.md", "one\ntwo\na dear model\n", LIST)
    assert str(problem) == (
        'docs/page.md:3: "dear model": use "expensive model (1 ms or more per image)"'
    )


def test_line_is_the_one_of_the_file_after_code_of_many_lines() -> None:
    code = "x = [\n    1,\n    2,\n]\n\n# a dear model\ntext = '''\n\ntold\n'''\n"
    assert [problem.line for problem in check("a.py", code, LIST)] == [6, 9]


def test_every_expression_is_valid_and_is_itself_not_allowed() -> None:
    for rule in LIST.phrases:
        re.compile(rule.match)
        for allowed in rule.allowed:
            re.compile(allowed)
        assert rule.use
    assert len({rule.match for rule in LIST.phrases}) == len(LIST.phrases)


def test_pending_rules_are_of_the_list_and_pending_folders_exist() -> None:
    matches = {rule.match for rule in (*LIST.phrases, *LIST.names)}
    for start, rules in LIST.pending.items():
        assert (words.ROOT / start).exists(), start
        assert set(rules) <= {"*", *matches}, start


def test_program_prints_each_problem_that_is_not_pending_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "good.md").write_text("Files are accepted.\n")
    (tmp_path / "bad.md").write_text("Files are taken.\n")
    monkeypatch.setattr(words, "ROOT", tmp_path)
    monkeypatch.setattr(words, "text_files", lambda folders: ["good.md", "bad.md"])
    assert main([]) == 1
    assert capsys.readouterr().err == (
        'bad.md:1: "are taken": use "accepted", "used", "read" or "in use"\n'
    )
    monkeypatch.setattr(words, "read_words", lambda: replace(LIST, pending={"bad.md": ["*"]}))
    assert main([]) == 0
    assert main(["--all"]) == 1
    assert capsys.readouterr().err.startswith("bad.md:1: ")
    assert main(["--count"]) == 0
    assert capsys.readouterr().out == "     1  bad.md\n"


def test_all_kinds_of_text_files_are_read() -> None:
    files = set(text_files())
    expected = ["README.md", "Makefile", "pyproject.toml", "deploy/Dockerfile", "tests/words.py"]
    assert files >= {*expected, "docker-compose.yml", "protos/convserve_protos/bundle.proto"}
