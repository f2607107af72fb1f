"""What the documentation says is what the programs do."""

import math
import re
import runpy
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from convserve_server.settings.settings import SETTINGS
from convserve_trainer.recipes import recipe_files

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="argparse lays out help otherwise in other versions"
)
def test_commands_page_is_what_the_commands_say() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "commands.py"))["page"]()
    assert (ROOT / "docs" / "commands.md").read_text() == page, "run: make docs"


PAGES = [
    *("README.md", "CONTRIBUTING.md", "SECURITY.md"),
    *(f"docs/{page.name}" for page in ROOT.glob("docs/*.md")),
]


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), target


def anchors(page: Path) -> set[str]:
    """Returns what a page's headings are called in links, as GitHub makes it of them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_to_headings_lead_to_one(page: str) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)#([^)]+)\)", (ROOT / page).read_text()):
        if "://" not in target:
            linked = (ROOT / page).parent / target if target else ROOT / page
            assert anchor in anchors(linked), f"{target}#{anchor}"


def test_index_names_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    assert [page for page in ROOT.glob("docs/*.md") if f"]({page.name})" not in index] == [
        ROOT / "docs" / "index.md"
    ]


@pytest.mark.parametrize("name", ["overview", "request", "bundle", "overload"])
def test_drawing_has_a_title_and_colours_for_light_and_dark(name: str) -> None:
    file = ROOT / "docs" / "drawings" / f"{name}.svg"
    root = ElementTree.parse(file).getroot()
    assert root.findtext("{*}title")
    assert "@media (prefers-color-scheme: dark)" in (root.findtext("{*}style") or "")
    # As wide as a telephone shows it, so that its text is never made smaller than it can be read.
    assert int(root.attrib["width"]) <= 460


def test_files_of_the_code_that_pages_name_exist() -> None:
    named = {
        path
        for page in PAGES
        for path in re.findall(r"\b[a-z]+(?:/[a-z_*]+)+\.(?:py|proto)", (ROOT / page).read_text())
    }
    assert "server/convserve_server/host/resources.py" in named
    assert [path for path in sorted(named) if not list(ROOT.glob(path))] == []


def test_each_limit_has_a_setting_or_none_and_a_test_that_exists() -> None:
    text = (ROOT / "docs/security.md").read_text()
    section = text.partition("\n## Limits\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith(("| what is bounded", "| ---"))]
    assert len(rows) > 30
    for row in rows:
        _, _, setting, _, test, _ = row.split("|")
        for name in re.findall(r"`([a-z_]+)`", setting):
            assert name in SETTINGS, row
        (named,) = re.findall(r"`([\w/.]+\.py)::(\w+)`", test)
        file, function = named
        assert f"def {function}(" in (ROOT / file).read_text(), row
    # No limit among the settings is forgotten.
    limits = {name for name, one in SETTINGS.items() if one.section == "limits"}
    assert limits <= set(re.findall(r"`([a-z_]+)`", section))


@pytest.mark.parametrize("page", ["README.md", "docs/training.md"])
def test_tables_of_recipes_have_the_sampling_error_of_each_share(page: str) -> None:
    text = (ROOT / page).read_text()
    rows = re.findall(r"([\d.]+) % ?[^|]*?, sampling error ([\d.]+), of ([\d,]+)", text)
    assert len(rows) == text.count("convserve-train fit digits --recipe lecture --seeds 5") + 4
    for percent, error, count in rows:
        share, n = float(percent) / 100, int(count.replace(",", ""))
        digits = len(error.partition(".")[2])
        assert error == f"{100 * math.sqrt(share * (1 - share) / n):.{digits}f}", percent


def test_recipes_that_choose_their_epoch_by_what_they_report_say_so() -> None:
    for page in ("README.md", "docs/training.md"):
        rows = [line for line in (ROOT / page).read_text().splitlines() if line.startswith("| `")]
        for recipe in recipe_files.every():
            [row] = [r for r in rows if f"fit {recipe.task} --recipe {recipe.name} " in r]
            chosen = recipe.validation_steps is not None
            assert ("its epoch is chosen by these pictures" in row) == chosen, (page, recipe.name)


def test_readme_names_make_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"make ([a-z-]+)", (ROOT / "README.md").read_text()))
    assert named
    assert named <= targets
