"""Models that are missing or refused, no connection, many classes; light, dark, small and large."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.web.conftest import OpenPage
from tests.web.hands import SEVEN, draw

#: A folder for pictures of the page at each width, light and dark, for those who want to see it.
PICTURES = os.environ.get("CONVSERVE_TEST_PICTURES")

#: Elements whose text has less contrast than WCAG 2.2 asks for (1.4.3, AA). Text on the canvas is
#: not among them: its ground is not that of an element.
FAINT = """() => {
    const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const luminance = (colour) => channels(colour).slice(0, 3)
        .map((each) => each / 255)
        .map((each) => (each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4))
        .reduce((sum, each, at) => sum + each * [0.2126, 0.7152, 0.0722][at], 0);
    const ground = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor;
            if ((channels(colour)[3] ?? 1) > 0) return colour;
        }
    };
    const text = (node) => node.nodeType === Node.TEXT_NODE && node.data.trim();
    return [...document.querySelectorAll("body *")]
        .filter((element) => element.checkVisibility())
        .filter((element) => !element.matches(":disabled, .hint, option"))
        .filter((element) => [...element.childNodes].some(text))
        .filter((element) => {
            const [dark, light] = [getComputedStyle(element).color, ground(element)]
                .map(luminance).sort((one, other) => one - other);
            return (light + 0.05) / (dark + 0.05) < 4.5;
        })
        .map((element) => element.outerHTML);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_page_fits_and_is_legible(open_page: OpenPage, scheme: str, width: int) -> None:
    page = open_page(width, color_scheme=scheme, reduced_motion="reduce")
    draw(page, SEVEN)
    page.get_by_role("button", name="Compare").click()
    expect(page.locator(".best strong")).to_have_text(["7", "7"])
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / f"page-{width}-{scheme}.png", full_page=True)
    page.locator("summary").click()
    assert page.evaluate(FAINT) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for target in page.locator("button, select, .button, #source span").all():
        if target.is_visible():
            box = target.bounding_box()
            assert box is not None
            assert box["height"] >= 44
    dark = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (dark == "rgb(16, 18, 22)") == (scheme == "dark")


def test_refused_versions_say_why(open_page: OpenPage) -> None:
    page = open_page()
    page.get_by_text("1 version is refused").click()
    expect(page.locator("#refused li")).to_have_text(re.compile("^broken, version 1 .+"))


def _answer(page: Page, path: str, body: object) -> None:
    def answer(route: Route) -> None:
        route.fulfill(content_type="application/json", body=json.dumps(body))

    page.route(path, answer)


def test_models_appear_when_there_are_some(open_page: OpenPage) -> None:
    page = open_page(
        prepare=lambda page: _answer(page, "**/v1/models", {"models": [], "refused": []})
    )
    expect(page.get_by_text("The server has loaded no model that")).to_be_visible()
    expect(page.get_by_role("button", name="Compare")).to_be_disabled()
    page.unroute("**/v1/models")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator(".bars li")).to_have_count(10)
    expect(page.locator("#notice")).to_be_hidden()


def test_drawing_of_a_lost_connection_is_answered_when_it_is_back(open_page: OpenPage) -> None:
    page = open_page()
    expect(page.locator("#connection")).to_have_text("Connected")
    page.context.set_offline(True)
    draw(page, SEVEN)
    expect(page.locator(".message.error")).to_have_text("The server cannot be reached.")
    page.context.set_offline(False)
    expect(page.locator(".best strong")).to_have_text("7")


def test_server_that_cannot_be_reached_at_first_is_asked_again(open_page: OpenPage) -> None:
    page = open_page(prepare=lambda page: page.route("**/v1/models", lambda route: route.abort()))
    expect(page.locator("#notice")).to_contain_text("The server cannot be reached.")
    page.unroute("**/v1/models")
    expect(page.locator("#connection")).to_have_text("Connected")
    expect(page.locator(".bars li")).to_have_count(10)


def test_version_that_answers_by_default_is_named_where_it_is_not_the_newest(
    open_page: OpenPage,
) -> None:
    input_ = {"height": 28, "width": 28, "channels": 1, "kind": "digits"}
    models = [
        {"name": "mnist", "version": 2, "labels": ["0", "1", "2"], "input": input_},
        {"name": "mnist", "version": 1, "labels": ["0", "1"], "input": input_, "default": True},
    ]
    page = open_page(
        prepare=lambda page: _answer(page, "**/v1/models", {"models": models, "refused": []})
    )
    options = page.get_by_label("Version").locator("option")
    expect(options).to_have_text(["Default (1)", "2", "1"])
    expect(page.locator(".bars li")).to_have_count(2)


def test_ten_of_many_classes_are_shown_in_their_order(open_page: OpenPage) -> None:
    names = [f"class {number}" for number in range(12)]
    classes = [{"label": name, "probability": 0.5 / 2**at} for at, name in enumerate(names[:1:-1])]
    input_ = {"height": 1, "width": 2, "channels": 3, "kind": "pixels"}
    model = {
        "name": "many",
        "version": 3,
        "labels": names,
        "input": input_,
        "version_labels": ["new"],
    }
    pixels = {**input_, "data": "/wAAAP8A"}  # red, green
    times = {"queue_us": 1000, "decode_us": 2000, "compute_us": 3500}

    def prepare(page: Page) -> None:
        answer: dict[str, Any] = {"model": "many", "version": 3, "timings": times}
        answer["results"] = [{"classes": classes, "pixels": pixels}]
        _answer(page, "**/v1/models", {"models": [model], "refused": []})
        _answer(page, "**/v1/models/many:classify?pixels=true&top_k=10", answer)

    page = open_page(prepare=prepare)
    expect(page.get_by_label("Version").locator("option")).to_have_text(["Newest (3)", "3 (new)"])
    page.set_input_files(
        "#choose", {"name": "a.png", "mimeType": "image/png", "buffer": b"\x89PNG"}
    )
    expect(page.locator(".bars .name")).to_have_text(names[:1:-1])
    expect(page.locator(".bars .value").first).to_have_text("50.0 %")
    expect(page.locator("[data-time=server]")).to_have_text("6.5 ms")
    seen: list[int] = page.get_by_role("img", name="2 × 1 pixels").evaluate(
        "(canvas) => [...canvas.getContext('2d').getImageData(0, 0, 2, 1).data]"
    )
    assert seen == [255, 0, 0, 255, 0, 255, 0, 255]
