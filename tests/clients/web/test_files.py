"""The files of the page: small, complete, and content with themselves."""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "clients" / "web"
FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file())

#: Namespaces, which nothing fetches.
NAMESPACE = "http://www.w3.org/2000/svg"


def test_they_are_small() -> None:
    assert {file.suffix for file in FILES} == {".css", ".html", ".js", ".svg"}
    assert sum(file.stat().st_size for file in FILES) < 100_000


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_nothing_comes_from_elsewhere(file: Path) -> None:
    text = file.read_text().replace(NAMESPACE, "")
    assert re.findall(r"""["'(=]\s*(?:https?:)?//[^\s"')]*""", text) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_they_refer_to_exists(file: Path) -> None:
    text = file.read_text()
    named = re.findall(r'(?:href|src)="([^"#]+)"|from "\./([^"]+)"|url\(([^)]+)\)', text)
    for target in ("".join(each) for each in named):
        assert (file.parent / target).is_file(), target


def test_every_script_is_used() -> None:
    page = (FOLDER / "index.html").read_text()
    assert [file.name for file in FILES if f'"{file.name}"' not in page] == ["index.html"]


def test_page_keeps_to_a_policy_without_inline_code() -> None:
    page = (FOLDER / "index.html").read_text()
    assert re.findall(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|javascript:", page) == []
