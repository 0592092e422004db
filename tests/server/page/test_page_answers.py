"""What becomes of answers: faults, busy servers, keys, Markdown, and a page that is left."""

import asyncio

import pytest
from starlette.responses import Response
from support.browser import BUSY_S
from support.scripted_server import cut, error_event, failed, words
from support.server import DEMO, until

FAULT_OF_CUT = "The connection broke: this answer is not complete."
UNENDED = (
    'data: {"choices": [{"index": 0, "delta": {"content": "The image"}}]}\n\n'  # as a server that crashes leaves it
)

FAULTS = {
    "cut": (lambda body: cut("The image shows"), FAULT_OF_CUT),
    "an error event": (lambda body: failing(), "The engine has ended."),
    "a file": (
        lambda body: failed(400, "invalid_image", "messages[0].content[0]: not an image that Pillow can read"),
        "Not an image that Pillow can read.",
    ),
    "context": (
        lambda body: failed(400, "context_length_exceeded", "the prompt has 9120 tokens, the context is 8192"),
        "The prompt has 9120 tokens, the context is 8192. Start a new chat, or send fewer images.",
    ),
    "no end": (lambda body: Response(UNENDED, media_type="text/event-stream"), FAULT_OF_CUT),
}


@pytest.mark.parametrize(
    "name", ["no end", *(pytest.param(name, marks=pytest.mark.slow) for name in list(FAULTS)[:-1])]
)
def test_what_went_wrong_is_shown(scripted, visit, name):
    scripted.script, shown = FAULTS[name]
    here = visit(scripted.url)
    page = here.open()
    here.ask("Describe it.")
    assert shown in page.locator(".message .fault").inner_text()
    # a question that got no answer does not come along for good
    had_words = page.locator(".message.model .answer").count()
    scripted.script = lambda body: words("Fine.")
    here.ask("Again?")
    assert here.answer(1) == "Fine."
    assert len(scripted.bodies[1]["messages"]) == (3 if had_words else 1)


async def failing():
    yield "The image"
    yield error_event("engine_dead", "the engine has ended")
    await asyncio.sleep(5)


@pytest.mark.slow
def test_a_busy_server_is_asked_again(scripted, visit):
    answers = [failed(503, "server_busy", "full", **{"Retry-After": "1"}), words("At last.")]
    scripted.script = lambda body: answers.pop(0)
    here = visit(scripted.url)
    page = here.open()
    here.ask("Hello?")
    page.wait_for_selector("text=The server is busy. Trying again in 1 s.")
    assert here.answer() == "At last."


@pytest.mark.slow
def test_the_key_is_asked_for_and_forgotten_with_the_tab(scripted, visit):
    scripted.api_key = "open sesame"
    here = visit(scripted.url)
    page = here.open()
    page.wait_for_selector("#key[open]")
    page.fill("#key-value", "wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=The server did not accept this key.")
    page.fill("#key-value", "open sesame")
    page.keyboard.press("Enter")
    page.wait_for_selector("#server-text:has-text('Model-500M')")
    here.ask("Hello?")
    assert here.answer() == "Yes."
    assert page.evaluate("JSON.stringify(localStorage)").count("sesame") == 0
    assert page.evaluate("JSON.stringify(sessionStorage)").count("sesame") == 1


def test_markdown_never_becomes_html(scripted, visit):
    text = (
        "# Title\n\n**bold** and *it* and `<b>`\n\n- one\n- two\n\n|a|b|\n|-|-|\n|1|2|\n\n```\n<i>\n```\n"
        "<img src=x onerror=alert(1)> <script>alert(1)</script> ![x](https://elsewhere.test/a.png) "
        "[no](javascript:alert(1)) [yes](https://elsewhere.test/)"
    )
    scripted.script = lambda body: words(text)
    here = visit(scripted.url)
    page = here.open()
    here.ask("Show me.")
    here.answer()
    answer = page.locator(".answer")
    tags = answer.evaluate("node => [...node.querySelectorAll('*')].map(one => one.tagName.toLowerCase())")
    assert {"h3", "strong", "em", "code", "li", "td", "pre"} <= set(tags)
    assert not {"img", "script", "b", "i", "iframe"} & set(tags)
    links = answer.locator("a").evaluate_all("nodes => nodes.map(node => [node.href, node.rel])")
    rel = "noopener noreferrer nofollow"
    assert links == [["https://elsewhere.test/a.png", rel], ["https://elsewhere.test/", rel]]
    assert "<script>alert(1)</script>" in answer.inner_text()


@pytest.mark.slow
def test_long_markdown_is_drawn_in_time(scripted, visit):
    page = visit(scripted.url).open()
    hostile = [
        "*a_" * 4000,
        "[" * 8000,
        "`" * 4001,
        "> " * 4000,
        "**a " * 3000,
        "|" * 4000 + "\n" + "-|" * 2000,
        "- " * 3000,
    ]
    spent = page.evaluate(
        """async (texts) => {
          const { render } = await import("/page/markdown.js");
          return texts.map((text) => { const start = performance.now(); render(document.createElement("div"), text);
            return performance.now() - start; });
        }""",
        hostile,
    )
    assert max(spent) < 1500, spent


def test_reloading_in_the_middle_of_an_answer(scripted, visit):
    scripted.script = lambda body: words("one two three " * 200, 0.02)
    here = visit(scripted.url)
    page = here.open()
    page.set_input_files("#files", DEMO / "picture.png")
    here.ask("Count.")
    page.wait_for_selector("text=one two three one")
    page.reload()
    page.wait_for_selector("text=The page was left before this answer was complete.")
    until(lambda: scripted.num_in_flight == 0)
    assert page.locator(".answer").inner_text().startswith("one two three")
    until(lambda: page.evaluate("document.querySelector('.media img').naturalWidth > 0"), BUSY_S)
    scripted.script = lambda body: words("Done.")
    page.click("text=Try again")
    assert here.answer() == "Done."
    assert scripted.bodies[0]["messages"] == scripted.bodies[1]["messages"]
