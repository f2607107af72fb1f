"""A server with keys: the page asks for one, and keeps it no longer than it is open."""

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from benchmarks.harness.ports import free_port
from tests.web.conftest import PYTHON
from tests.web.hands import SEVEN, draw

if TYPE_CHECKING:
    from playwright.sync_api import Browser

KEY = "a-key-of-the-test"


@pytest.fixture
def site_with_keys(models: Path, tmp_path: Path) -> Iterator[str]:
    """The address of the page of a server that wants a key."""
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    file = tmp_path / "keys.toml"
    file.write_text(f'[[key]]\nname = "page"\nsha256 = "{digest}"\n')
    port = free_port()
    with subprocess.Popen(
        [
            PYTHON, "-m", "convserve_server.main", "--models", models, "--port", "0",
            "--http-port", str(port), "--workers", "1", "--keys", str(file),
        ],
        stdout=subprocess.PIPE,
        text=True,
    ) as server:  # fmt: skip
        assert server.stdout is not None
        assert any("listening on" in line for line in server.stdout)
        yield f"http://127.0.0.1:{port}/"
        server.terminate()
        server.communicate()


def test_page_asks_for_a_key_and_keeps_it_in_memory_only(
    browser: "Browser", site_with_keys: str
) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(site_with_keys)
    field, use = page.get_by_label("Key"), page.get_by_role("button", name="Use this key")
    expect(page.locator("#notice")).to_contain_text("The server answers only with a key.")
    field.fill("another")
    use.click()
    expect(page.locator("#notice")).to_contain_text("The server does not accept this key.")
    field.fill(KEY)
    use.click()
    expect(page.locator("#connection")).to_have_text("Connected")
    expect(field).to_be_hidden()
    draw(page, SEVEN)
    expect(page.locator(".best strong")).to_have_text(["7"])
    assert page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])") == "[{},{}]"
    assert context.cookies() == []
    page.reload()
    expect(page.locator("#notice")).to_contain_text("The server answers only with a key.")
    context.close()
