"""The page of a real server in a real browser; see `make test-web`."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.harness.ports import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

ROOT = Path(__file__).parents[2]

#: What runs servers and trainings; the tests themselves have an environment of their own.
PYTHON = ROOT / ".venv" / "bin" / "python"

#: In that environment alone there is something to collect.
collect_ignore_glob = [] if find_spec("playwright") else ["test_*.py"]

PATIENCE_MS = 30_000

OpenPage = Callable[..., "Page"]


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    """Chromium, of the system or of Playwright."""
    from playwright.sync_api import Error, expect, sync_playwright

    expect.set_options(timeout=PATIENCE_MS)
    named = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, named)), None)
    with sync_playwright() as playwright:
        try:
            # It refuses to have its sandbox where root starts it, as in containers.
            browser = playwright.chromium.launch(
                executable_path=path, chromium_sandbox=os.geteuid() != 0
            )
        except Error as error:
            if path is not None:
                raise
            pytest.skip(f"no Chromium (apt-get install chromium): {error.message.splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def models(browser: "Browser", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder, made only where there is a browser to look at it."""
    folder = tmp_path_factory.mktemp("web") / "models"
    command = [str(PYTHON), "-m", "tests.web.make_models", str(folder)]
    made = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    assert made.returncode == 0, made.stdout + made.stderr
    return folder


@pytest.fixture(scope="session")
def site(models: Path) -> Iterator[str]:
    """The address of a server's page."""
    settings = models.parent / "settings.toml"
    settings.write_text('[models.mnist]\nversions = "all"\n')
    port = free_port()
    with subprocess.Popen(
        [
            PYTHON, "-m", "convserve_server.main", "--models", models, "--config", settings,
            "--host", "127.0.0.1", "--port", "0", "--http-port", str(port), "--workers", "1",
            "--log-format", "json",
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={key: value for key, value in os.environ.items() if "CONVSERVE_" not in key},
    ) as server:  # fmt: skip
        assert server.stdout is not None
        log = []
        for line in server.stdout:
            log.append(json.loads(line)["message"])
            if "listening on" in log[-1]:
                break
        else:
            pytest.fail("\n".join(log))
        yield f"http://127.0.0.1:{port}/"
        server.terminate()
        server.communicate()
    assert server.returncode == 0


@pytest.fixture
def open_page(browser: "Browser", site: str) -> Iterator[OpenPage]:
    """Opens the page; checks in the end that it asked nobody else, and that no script failed."""
    contexts = []
    seen: list[str] = []
    wrong: list[str] = []

    def noted(message: "ConsoleMessage") -> None:
        # What the policy for content forbids is reported here, and so are statuses and outages.
        if message.type == "error" and "Failed to load resource" not in message.text:
            wrong.append(message.text)

    def opened(
        width: int = 1280, prepare: Callable[["Page"], None] | None = None, **options: Any
    ) -> "Page":
        viewport = {"width": width, "height": 860}
        contexts.append(browser.new_context(viewport=viewport, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", lambda request: seen.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", noted)
        if prepare is not None:
            prepare(page)
        page.goto(site)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [url for url in seen if not url.startswith(site)] == []
    assert seen
    assert wrong == []
