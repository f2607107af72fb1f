"""The page for browsers: files of a folder, read once and served from memory.

What is not one of them is not found, so no path leads out of the folder.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from convserve_server.protocols.rest.messages import HttpAnswer, HttpRequest

_INDEX = "index.html"

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".txt": "text/plain; charset=utf-8",
}

#: Everything of the page comes from this server; it shows pictures that its user chooses.
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


def web_folder() -> Path | None:
    """Returns the folder of the page; None where there is none.

    It is in the installed package, else in the checkout that this file is of.
    """
    package = Path(__file__).parents[2]
    for folder in (package / "web", package.parents[1] / "clients/web"):
        if (folder / _INDEX).is_file():
            return folder
    return None


def read_pages(folder: Path | None) -> Mapping[str, HttpAnswer]:
    """Returns the files of a folder by the path at which they are served.

    Files of a type that is not known are left out: sources and notes beside the page.

    Args:
        folder: with index.html, which is also at "/"; None for no files.

    Raises:
        OSError: if one cannot be read.
    """
    pages: dict[str, HttpAnswer] = {}
    for path in sorted(folder.rglob("*")) if folder else ():
        type_ = _TYPES.get(path.suffix)
        if type_ is None or not path.is_file():
            continue
        data = path.read_bytes()
        headers = (
            # Asked for each time, and sent again only if it has changed.
            ("cache-control", "no-cache"),
            ("etag", f'"{hashlib.sha256(data).hexdigest()[:32]}"'),
            ("content-security-policy", _POLICY),
            ("referrer-policy", "no-referrer"),
        )
        answer = HttpAnswer(200, data, type_, headers)
        name = path.relative_to(folder).as_posix()  # type: ignore[arg-type]  # Then there are none.
        pages[f"/{name}"] = answer
        if name == _INDEX:
            pages["/"] = answer
    return pages


def page_answer(request: HttpRequest, page: HttpAnswer) -> HttpAnswer:
    """Returns a file, or that it is still as its client has it.

    Source: RFC 9110, section 13.1.2.
    """
    tag = dict(page.headers)["etag"]
    known = request.headers.get("if-none-match", "")
    tags = {each.strip().removeprefix("W/") for each in known.split(",")}
    if tag in tags or known.strip() == "*":
        return HttpAnswer(304, b"", "", page.headers)
    return page
