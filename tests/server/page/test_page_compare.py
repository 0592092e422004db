"""The view Compare: two images, one question."""

import base64
import re

import pytest
from support.browser import drop
from support.scripted_server import words
from support.server import DEMO, until

FILES = [
    (name, "image/png", base64.b64encode((DEMO / name).read_bytes()).decode()) for name in ("first.png", "second.png")
]
ANSWER = "A large green star in the center, then a large purple star in the center: the color differs."


def test_the_samples(server, visit):
    page = visit(server.url).open("compare")
    page.click("#compare-sample")
    page.wait_for_selector(f"#compare-answer:has-text('{ANSWER}')")
    page.click("#compare-chat")
    page.wait_for_selector("#view-chat:not([hidden])")
    assert page.locator(".message.model .answer").inner_text() == ANSWER
    assert page.locator(".media img").count() == 2


@pytest.mark.slow
def test_dropped_swapped_and_asked(scripted, visit):
    page = visit(scripted.url).open("compare")
    assert page.locator("#compare-send").is_disabled()
    drop(page, "#slot-1", FILES[0])
    drop(page, "#view-compare", FILES[1])  # into the place that is free
    assert page.locator("#drop").is_hidden()
    page.click("#swap")
    page.fill("#compare-text", "Which one is green?")
    page.keyboard.press("Enter")
    page.wait_for_selector("#compare-answer .cost")
    (message,) = scripted.bodies[0]["messages"]
    assert [part["image_url"]["url"] for part in message["content"][:2]] == [
        f"data:image/png;base64,{file[2]}" for file in FILES
    ]
    assert message["content"][2]["text"] == "Which one is green?"
    page.click("[aria-label='Remove the first image']")
    assert page.locator("#compare-send").is_disabled()


@pytest.mark.slow
def test_both_at_once_and_stop(scripted, visit):
    scripted.script = lambda body: words("one two three " * 100, 0.02)
    page = visit(scripted.url).open("compare")
    drop(page, "#slot-1", *FILES)
    assert re.findall("First|Second", page.locator(".slots").inner_text()) == ["First", "Second"]
    page.click("#compare-send")
    page.wait_for_selector("#compare-answer:has-text('one two')")
    page.click("#compare-stop")
    page.wait_for_selector("#compare-answer:has-text('Stopped.')")
    until(lambda: scripted.num_in_flight == 0)
    assert "one two" in page.locator("#compare-answer").inner_text()
