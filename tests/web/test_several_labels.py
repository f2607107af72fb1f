"""Pictures that have several labels, or none."""

import re

import pytest
from playwright.sync_api import expect

from tests.web.conftest import OpenPage
from tests.web.hands import choose, picture


@pytest.mark.parametrize("width", [1280, 400])
def test_labels_of_a_picture_are_named_and_their_bars_have_marks(
    open_page: OpenPage, width: int
) -> None:
    page = open_page(width)
    page.get_by_label("Model").select_option("tags")
    expect(page.locator(".about")).to_have_text(
        "150 × 150 RGB, 3 labels, any number of them a picture, 100.0 % of held-out pictures right"
    )
    choose(page, "magenta.jpg", "image/jpeg", picture(page, "magenta", "image/jpeg"))
    expect(page.locator(".best strong")).to_have_text(re.compile("red, blue|blue, red"))
    expect(page.locator(".first .name")).to_have_text(["red", "blue"])
    # The thresholds of red, green and blue.
    for position, share in enumerate((50, 25, 75)):
        mark = page.locator(".bars li").nth(position).locator("i")
        expect(mark).to_be_visible()
        assert mark.evaluate("mark => mark.style.left") == f"{share}%"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    choose(page, "black.jpg", "image/jpeg", picture(page, "black", "image/jpeg"))
    expect(page.locator(".best strong")).to_have_text("no label")
    expect(page.locator(".first")).to_have_count(0)
    expect(page.locator("#spoken")).to_contain_text("no label")

    page.get_by_label("Model").select_option("colours")
    expect(page.locator(".best strong")).to_have_text("red")
    expect(page.locator(".bars i").first).to_be_hidden()
