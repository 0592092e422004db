"""A real browser, its camera, and pages that tell what they did."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
BUSY_S = 60.0  # for what takes a fraction of a second on a machine that does nothing else
FOREIGN_HOST = "elsewhere.test"  # is this machine, but the browser does not know that
PAPER = (236, 235, 230)
CAMERA_SIZE, CAMERA_FPS = (320, 240), 10
SCENE_S = 1.5
# What the camera shows for `SCENE_S` each: color, its RGB, place, center as shares of width and height.
CAMERA_SCENES = (
    ("red", (214, 40, 40), "at the top left", 0.25, 0.25),
    ("green", (50, 160, 70), "at the bottom right", 0.75, 0.75),
)
WATCH = """addEventListener("securitypolicyviolation",
  (event) => console.error("VIOLATION", event.violatedDirective, event.blockedURI));"""


@contextmanager
def playing() -> Iterator[Any]:
    """Playwright; a test that needs it is skipped where there is none, or no Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium; install it with: apt-get install chromium")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LD_PRELOAD", raising=False)  # a BLAS keeps threads of the browser from beginning
        player = sync_api.sync_playwright().start()
    try:
        yield player
    finally:
        player.stop()


@contextmanager
def launched(player: Any, *flags: str) -> Iterator[Any]:
    """Chromium."""
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    browser = player.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags], env=environment)
    try:
        yield browser
    finally:
        browser.close()


def camera_flags(folder: Path) -> list[str]:
    """Flags for a camera that shows `CAMERA_SCENES` in turn."""
    path = folder / "camera.y4m"
    width, height = CAMERA_SIZE
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F{CAMERA_FPS}:1 Ip A1:1 C420jpeg\n".encode())
        for _, color, _, x, y in CAMERA_SCENES:
            frame = b"FRAME\n" + _yuv(square(color, x, y))
            file.write(frame * round(SCENE_S * CAMERA_FPS))
    return ["--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={path}"]


def square(color: tuple[int, int, int], x: float, y: float) -> Image.Image:
    """A square on light paper, its center at shares of width and height."""
    image = Image.new("RGB", CAMERA_SIZE, PAPER)
    side, center = 50, (x * CAMERA_SIZE[0], y * CAMERA_SIZE[1])
    box = [center[0] - side, center[1] - side, center[0] + side, center[1] + side]
    ImageDraw.Draw(image).rectangle(box, fill=color)
    return image


def _yuv(image: Image.Image) -> bytes:
    planes = np.asarray(image.convert("YCbCr")).transpose(2, 0, 1)
    return planes[0].tobytes() + planes[1, ::2, ::2].tobytes() + planes[2, ::2, ::2].tobytes()


class Visit:
    """A page, and what it must not do.

    Attributes:
        page: of playwright.
        url: of the server.
        problems: violations of the content security policy and errors of scripts.
        requests: all that went over the network: method and address.
    """

    def __init__(self, page: Any, url: str):
        self.page, self.url = page, url
        self.problems: list[str] = []
        self.requests: list[tuple[str, str]] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", lambda request: self.requests.append((request.method, request.url)))
        page.add_init_script(WATCH)

    def open(self, view: str = "chat") -> Any:
        """Load the page, and wait until it works."""
        self.page.goto(f"{self.url}/#{view}")
        self.page.wait_for_selector("html[data-ready]")
        return self.page

    def ask(self, text: str) -> None:
        """Send a question in Chat."""
        self.page.fill("#chat-text", text)
        self.page.keyboard.press("Enter")

    def answer(self, number: int = 0) -> str:
        """The text of an answer in Chat, once it is complete."""
        message = self.page.locator(".message.model").nth(number)
        message.locator(".cost").wait_for()
        return message.locator(".answer").inner_text()

    def check(self) -> None:
        """No policy violated, no script failed, nothing asked of another server."""
        assert self.problems == []
        assert [url for _, url in self.requests if not url.startswith((f"{self.url}/", "blob:", "data:"))] == []

    def _heard(self, message: Any) -> None:
        if "VIOLATION" in message.text or "Security Policy" in message.text or "Trusted" in message.text:
            self.problems.append(message.text)


DROP = """([selector, files]) => {
  const transfer = new DataTransfer();
  for (const [name, type, text] of files) {
    transfer.items.add(new File([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], name, {type}));
  }
  const target = document.querySelector(selector);
  for (const kind of KINDS) {
    const more = kind === "paste" ? {clipboardData: transfer} : {dataTransfer: transfer};
    const event = new (kind === "paste" ? ClipboardEvent : DragEvent)(kind, {bubbles: true, cancelable: true, ...more});
    target.dispatchEvent(event);
  }
}"""


def drop(page: Any, selector: str, *files: tuple[str, str, str]) -> None:
    """Drop files, each (name, media type, base64), on an element."""
    page.evaluate(DROP.replace("KINDS", '["dragenter", "dragover", "drop"]'), [selector, files])


def paste(page: Any, selector: str, *files: tuple[str, str, str]) -> None:
    """Paste files into an element."""
    page.evaluate(DROP.replace("KINDS", '["paste"]'), [selector, files])
