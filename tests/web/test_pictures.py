"""Pictures that are chosen, dropped or pasted."""

import re

import pytest
from playwright.sync_api import expect

from tests.web.conftest import OpenPage
from tests.web.hands import bring, choose, picture

#: Two frames of 2 x 2 pixels, red and blue.
RED_GIF = bytes.fromhex(
    "47494638376102000200810000ff00000000ff0000000000002c000000000200020000080600010804101000"
    "21f90401000001002c0000000002000200810000ff0000000000000000000806000108041010003b"
)


@pytest.mark.parametrize("way", ["choose", "drop", "paste"])
def test_photograph_is_answered(open_page: OpenPage, way: str) -> None:
    page = open_page()
    page.get_by_label("Model").select_option("colours")
    expect(page.locator("#pad")).to_be_hidden()
    data = picture(page, "red", "image/jpeg")
    if way == "choose":
        choose(page, "red.jpg", "image/jpeg", data)
    else:
        bring(page, way, "red.jpg", "image/jpeg", data)
    expect(page.locator(".best strong")).to_have_text("red")
    expect(page.get_by_role("img", name="150 × 150 pixels")).to_be_visible()
    name = "Pasted picture" if way == "paste" else "red.jpg"
    expect(page.locator("#file-note")).to_have_text(
        re.compile(rf"^{name}, 60 × 40 pixels, \d+ kB\.$")
    )


@pytest.mark.parametrize("type_", ["image/png", "image/webp"])
def test_what_the_model_cannot_read_is_sent_as_a_jpeg(open_page: OpenPage, type_: str) -> None:
    page = open_page()
    page.get_by_label("Model").select_option("colours")
    with page.expect_request("**:classify?**") as asked:
        choose(page, "blue", type_, picture(page, "blue", type_))
    assert asked.value.headers["content-type"] == "image/jpeg"
    expect(page.locator(".best strong")).to_have_text("blue")
    expect(page.locator("#file-note")).to_contain_text("Sent as a JPEG: the model reads JPEG.")


@pytest.mark.parametrize("type_", ["image/png", "image/webp", "image/gif"])
def test_what_the_model_reads_is_sent_as_it_is(open_page: OpenPage, type_: str) -> None:
    page = open_page()
    page.get_by_label("Model").select_option("mixed")
    data = RED_GIF if type_ == "image/gif" else picture(page, "red", type_)
    with page.expect_request("**:classify?**") as asked:
        choose(page, "red", type_, data)
    headers = asked.value.all_headers()
    assert (headers["content-type"], headers["content-length"]) == (type_, str(len(data)))
    expect(page.locator(".best strong")).to_have_text("red")
    expect(page.locator("#file-note")).not_to_contain_text("Sent as")


def test_one_of_two_models_that_does_not_read_the_file_is_sent_a_jpeg(open_page: OpenPage) -> None:
    page = open_page()
    page.get_by_label("Model").select_option("mixed")
    choose(page, "red", "image/png", picture(page, "red", "image/png"))
    expect(page.locator(".best strong")).to_have_text("red")
    with page.expect_request("**/colours*:classify?**") as asked:
        page.get_by_role("button", name="Compare").click()
    assert asked.value.headers["content-type"] == "image/jpeg"
    expect(page.locator(".best strong")).to_have_text(["red", "red"])
    expect(page.locator("#file-note")).to_contain_text("Sent as a JPEG: the model reads JPEG.")


def test_what_is_too_large_is_sent_smaller(open_page: OpenPage) -> None:
    page = open_page()
    page.get_by_label("Model").select_option("colours")
    data = picture(page, "red", "image/jpeg", 3000, 10)
    with page.expect_request("**:classify?**") as asked:
        choose(page, "large.jpg", "image/jpeg", data + bytes(15_000_000))
    assert int(asked.value.all_headers()["content-length"]) < len(data) + 100_000
    expect(page.locator("#file-note")).to_have_text(
        "large.jpg, 3000 × 10 pixels, 15.0 MB. "
        "Sent as a JPEG: files of up to 15.0 MB are sent as they are."
    )
    expect(page.locator(".best strong")).to_have_text("red")


def test_picture_of_a_digit_goes_as_it_is_and_leaves_the_sheet(open_page: OpenPage) -> None:
    page = open_page()
    data = picture(page, "white", "image/png")
    with page.expect_request("**:classify?**") as asked:
        bring(page, "drop", "white.png", "image/png", data)
    headers = asked.value.all_headers()
    assert (headers["content-type"], headers["content-length"]) == ("image/png", str(len(data)))
    expect(page.locator("#pad")).to_be_hidden()
    # A blank sheet: the sentence of the server.
    expect(page.locator(".message.error")).to_have_text(re.compile(r"^body: .*\.$"))
    spoken = page.locator(".message").inner_text()
    expect(page.locator("#spoken")).to_have_text(spoken)
    page.get_by_text("Draw", exact=True).click()
    expect(page.locator("#pad")).to_be_visible()


def test_half_a_jpeg_is_refused_in_the_words_of_the_server(open_page: OpenPage) -> None:
    page = open_page()
    page.get_by_label("Model").select_option("colours")
    whole = picture(page, "green", "image/jpeg", 600, 600)
    choose(page, "half.jpg", "image/jpeg", whole[: len(whole) // 2])
    expect(page.locator(".message.error")).to_have_text(re.compile("^body: the JPEG is truncated"))
    choose(page, "whole.jpg", "image/jpeg", whole)
    expect(page.locator(".best strong")).to_have_text("green")
    expect(page.locator(".message")).to_have_text("")


def test_file_that_is_not_a_picture_is_not_sent(open_page: OpenPage) -> None:
    page = open_page()
    expect(page.locator(".bars li")).to_have_count(10)
    choose(page, "notes.txt", "text/plain", b"hello")
    expect(page.locator("#file-note")).to_have_text(
        "picture: expected a file that this browser can read, got notes.txt."
    )
    expect(page.locator(".best")).to_be_hidden()
