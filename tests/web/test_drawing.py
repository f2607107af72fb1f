"""A digit that is drawn on the page, and its answer."""

import re

import pytest
from playwright.sync_api import Page, Request, expect

from tests.web.conftest import OpenPage
from tests.web.hands import SEVEN, draw, draw_with_a_finger, ink, press_a_pen, press_and_draw

PERCENT = re.compile(r"\d+\.\d %")


def test_seven_is_read_while_it_is_drawn(open_page: OpenPage) -> None:
    flying: set[Request] = set()
    most = 0

    def sent(request: Request) -> None:
        nonlocal most
        if ":classify" in request.url:
            flying.add(request)
            most = max(most, len(flying))

    def landed(request: Request) -> None:
        flying.discard(request)

    page = open_page()
    expect(page.get_by_text("Draw a digit: the answer comes as you draw.")).to_be_visible()
    bars = page.locator(".bars")
    before = bars.bounding_box()
    page.on("request", sent)
    page.on("requestfinished", landed)
    press_and_draw(page, SEVEN)
    expect(page.locator(".best strong")).to_have_text("7")
    page.mouse.up()
    expect(page.locator("#spoken")).to_have_text(re.compile(rf"^7, {PERCENT.pattern}$"))
    expect(page.locator(".best strong")).to_have_text("7")
    expect(page.locator(".by")).to_have_text("Answered by mnist, version 2.")
    rows = bars.get_by_role("listitem")
    expect(rows).to_have_count(10)
    expect(rows.nth(7)).to_have_class("first")
    expect(rows.nth(7)).to_have_text(re.compile(rf"^7{PERCENT.pattern}$"))
    for time in page.locator("dd").all():
        expect(time).to_have_text(re.compile(r"^\d+\.\d ms$"))
    assert most == 1, "one request at a time"
    assert bars.bounding_box() == before, "nothing moves when the answer comes"


def test_what_the_model_sees_is_shown_pixel_by_pixel(open_page: OpenPage) -> None:
    page = open_page()
    draw(page, SEVEN)
    # What is asked while it is drawn is answered with a part of it.
    expect(page.locator(".column")).to_have_attribute("aria-busy", "false")
    seen = page.get_by_role("img", name="28 × 28 pixels")
    expect(seen).to_be_visible()
    light: list[tuple[int, int]] = seen.evaluate(
        """(canvas) => {
            const { data } = canvas.getContext("2d").getImageData(0, 0, 28, 28);
            return [...Array(784).keys()]
                .filter((at) => data[4 * at] > 128).map((at) => [at % 28, Math.floor(at / 28)]);
        }"""
    )
    rows = [row for _, row in light]
    # A light digit on a dark ground, 20 pixels high.
    assert 40 < len(light) < 200
    assert 18 <= max(rows) - min(rows) + 1 <= 20
    assert seen.evaluate("(canvas) => getComputedStyle(canvas).imageRendering") == "pixelated"


def test_undo_and_clear_take_back_what_is_drawn(open_page: OpenPage) -> None:
    page = open_page()
    undo, clear = page.get_by_role("button", name="Undo"), page.get_by_role("button", name="Clear")
    expect(undo).to_be_disabled()
    draw(page, SEVEN)
    draw(page, [(0.35, 0.55), (0.7, 0.55)])
    undo.click()
    expect(page.locator("#spoken")).to_have_text(re.compile("^7, "))
    clear.click()
    expect(page.get_by_text("Draw a digit: the answer comes as you draw.")).to_be_visible()
    expect(page.locator(".best")).to_be_hidden()
    expect(clear).to_be_disabled()


def test_finger_draws_and_does_not_scroll_the_page(open_page: OpenPage) -> None:
    page = open_page(400, has_touch=True, is_mobile=True)
    expect(page.locator(".bars li")).to_have_count(10)
    draw_with_a_finger(page, SEVEN)
    expect(page.locator(".best strong")).to_have_text("7")
    assert page.evaluate("scrollY") == 0


def test_pen_draws_wider_where_it_is_pressed(open_page: OpenPage) -> None:
    page = open_page()
    press_a_pen(page, 0.2)
    thin = ink(page)
    page.get_by_role("button", name="Clear").click()
    press_a_pen(page, 1.0)
    assert 0 < 1.5 * thin < ink(page)


def _tab_to(page: Page, selector: str) -> None:
    for _ in range(20):
        if page.locator(selector).evaluate("(element) => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    pytest.fail(f"Tab does not reach {selector}")


def test_seven_is_drawn_by_keys_alone(open_page: OpenPage) -> None:
    page = open_page()
    expect(page.locator(".bars li")).to_have_count(10)
    _tab_to(page, "#pad")
    keys = page.keyboard
    for _ in range(4):
        keys.press("ArrowLeft")
    keys.press("Space")
    expect(page.locator("#spoken")).to_have_text("Pen down")
    for _ in range(8):
        keys.press("ArrowRight")
    keys.down("ArrowLeft")
    for _ in range(3):
        keys.press("ArrowDown")
    keys.up("ArrowLeft")
    for _ in range(8):
        keys.press("ArrowDown")
    keys.press("Space")
    expect(page.locator("#spoken")).to_have_text(re.compile("^7, "))
    keys.press("Delete")
    expect(page.locator(".best")).to_be_hidden()
    _tab_to(page, "#sample")
    keys.press("Enter")
    expect(page.locator("#spoken")).to_have_text(re.compile("^7, "))


def test_two_versions_answer_side_by_side(open_page: OpenPage) -> None:
    page = open_page()
    page.get_by_role("button", name="Sample").click()
    compare = page.get_by_role("button", name="Compare")
    compare.click()
    expect(compare).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".by")).to_have_text(
        ["Answered by mnist, version 2.", "Answered by mnist, version 1."]
    )
    expect(page.locator("#spoken")).to_have_text(
        re.compile(r"^mnist version 2: 7, .*\. mnist version 1: 7, ")
    )
    # The same drawing for another model, which reads JPEG alone.
    page.get_by_label("Model").nth(1).select_option("colours")
    expect(page.locator(".by").nth(1)).to_have_text("Answered by colours, version 1.")
    expect(page.get_by_role("img", name="150 × 150 pixels")).to_be_visible()
    compare.click()
    expect(page.locator(".column")).to_have_count(1)


def test_samples_of_all_digits_are_found_on_the_sheet(open_page: OpenPage) -> None:
    """Whether a small net reads them does not matter here."""
    page = open_page()
    expect(page.locator(".bars li")).to_have_count(10)
    for _ in range(10):
        with page.expect_response("**:classify?**") as answer:
            page.get_by_role("button", name="Sample").click()
        assert answer.value.status == 200
