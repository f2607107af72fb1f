"""What people do to the page: draw, and bring pictures."""

import base64
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

#: A seven, as shares of the sheet.
SEVEN = [(0.3, 0.22), (0.5, 0.21), (0.72, 0.2), (0.6, 0.5), (0.45, 0.85)]


def on_sheet(page: "Page", points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns where points of the sheet are in the window, CSS pixels."""
    box = page.locator("#pad").bounding_box()
    assert box is not None
    return [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]


def press_and_draw(page: "Page", points: list[tuple[float, float]]) -> None:
    """Draws with the mouse, and keeps its button down."""
    (x, y), *others = on_sheet(page, points)
    page.mouse.move(x, y)
    page.mouse.down()
    for x, y in others:
        page.mouse.move(x, y, steps=6)


def draw(page: "Page", points: list[tuple[float, float]]) -> None:
    """Draws with the mouse."""
    press_and_draw(page, points)
    page.mouse.up()


def draw_with_a_finger(page: "Page", points: list[tuple[float, float]]) -> None:
    """Draws as a touch screen reports it."""
    session = page.context.new_cdp_session(page)
    for at, (x, y) in enumerate(on_sheet(page, points)):
        touches = [{"x": x, "y": y}]
        kind = "touchMove" if at else "touchStart"
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def press_a_pen(page: "Page", force: float) -> None:
    """Draws a line with a pen that is pressed so much, 0 to 1."""
    session = page.context.new_cdp_session(page)
    for kind, (x, y) in zip(
        ("mousePressed", "mouseMoved", "mouseReleased"),
        on_sheet(page, [(0.5, 0.2), (0.5, 0.8), (0.5, 0.8)]),
        strict=True,
    ):
        event = {"type": kind, "x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1}
        pen = {"pointerType": "pen", "force": force}
        session.send("Input.dispatchMouseEvent", {**event, **pen})


def ink(page: "Page") -> int:
    """Returns how many pixels of the sheet are dark."""
    dark: int = page.locator("#pad").evaluate(
        """(canvas) => {
            const { width, height } = canvas;
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            return data.filter((level, at) => at % 4 === 0 && level < 128).length;
        }"""
    )
    return dark


def picture(page: "Page", colour: str, type_: str, width: int = 60, height: int = 40) -> bytes:
    """Returns a file of one colour, made by the browser."""
    url: str = page.evaluate(
        """([colour, type, width, height]) => {
            const canvas = Object.assign(document.createElement("canvas"), { width, height });
            const context = canvas.getContext("2d");
            context.fillStyle = colour;
            context.fillRect(0, 0, width, height);
            return canvas.toDataURL(type);
        }""",
        [colour, type_, width, height],
    )
    return base64.b64decode(url.partition(",")[2])


def choose(page: "Page", name: str, type_: str, data: bytes) -> None:
    """Chooses a file, as a dialogue would."""
    page.set_input_files("#choose", {"name": name, "mimeType": type_, "buffer": data})


def bring(page: "Page", event: str, name: str, type_: str, data: bytes) -> None:
    """Drops or pastes a file."""
    page.evaluate(
        """([event, name, type, data]) => {
            const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, { type }));
            const options = { bubbles: true, cancelable: true };
            document.body.dispatchEvent(
                event === "drop"
                    ? new DragEvent("drop", { ...options, dataTransfer: transfer })
                    : new ClipboardEvent("paste", { ...options, clipboardData: transfer }),
            );
        }""",
        [event, name, type_, base64.b64encode(data).decode()],
    )
