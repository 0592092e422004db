"""The view Chat in a real browser."""

import asyncio
import base64
import json
import re

import pytest
from support.browser import drop, paste
from support.scripted_server import cut, error_event, failed, words
from support.server import DEMO, until


def given(name: str, media_type: str = "image/png") -> tuple[str, str, str]:
    return name, media_type, base64.b64encode((DEMO / name).read_bytes()).decode()


def test_chosen_dropped_and_pasted_images_are_sent_as_they_are(server, visit):
    here = visit(server.url)
    page = here.open()
    bodies = []
    page.on("request", lambda request: request.method == "POST" and bodies.append(request.post_data_json))
    page.set_input_files("#files", DEMO / "picture.png")
    here.ask("Describe the picture.")
    assert here.answer() == "A large red circle at the top left."
    page.click("#chat-new")
    drop(page, "body", given("first.png"))
    paste(page, "#chat-text", given("second.png"))
    assert page.locator("#tray li").count() == 2
    here.ask("What is different between the two pictures?")
    answer = "A large green star in the center, then a large purple star in the center: the color differs."
    assert here.answer() == answer
    cost = page.locator(".cost").inner_text()
    assert re.search(r"[\d.]+ s\s+to first token", cost) and "2 images" in cost and "tokens\nin" in cost
    assert page.locator("#tray").is_hidden()
    sent = [part["image_url"]["url"] for part in bodies[1]["messages"][0]["content"][:2]]
    assert sent == [f"data:image/png;base64,{given(name)[2]}" for name in ("first.png", "second.png")]


def test_a_dropped_video_is_understood(server, visit):
    here = visit(server.url)
    page = here.open()
    drop(page, "#view-chat", given("clip.mp4", "video/mp4"))
    here.ask("Which way does the shape move?")
    assert here.answer() == "The blue shape moves to the right."
    assert "1 video" in page.locator(".cost").inner_text()


def test_a_second_question_reads_only_itself(server, visit):
    here = visit(server.url)
    page = here.open()
    page.click("[data-sample=picture]")
    here.answer()
    here.ask("What color is the shape?")
    assert here.answer(1) == "Red."
    cached = page.locator(".message.model").nth(1).locator(".cost div", has_text="cached").inner_text()
    assert int(re.sub(r"\D", "", cached)) > 30


def test_stop_keeps_what_was_said_and_ends_the_request(scripted, visit):
    scripted.script = lambda body: words("one two three " * 100, 0.02)
    here = visit(scripted.url)
    page = here.open()
    here.ask("Count.")
    page.wait_for_selector("text=one two three")
    page.keyboard.press("Escape")
    page.wait_for_selector("text=Stopped.")
    until(lambda: scripted.num_in_flight == 0)
    assert scripted.num_left == 1
    assert page.locator(".answer").inner_text().startswith("one two three")
    assert page.evaluate("document.activeElement.id") == "chat-text"
    # what was said is part of the conversation
    scripted.script = lambda body: words("Go on.")
    here.ask("And then?")
    assert here.answer(1) == "Go on."
    assert [message["role"] for message in scripted.bodies[1]["messages"]] == ["user", "assistant", "user"]


def test_edit_and_answer_again(scripted, visit):
    here = visit(scripted.url)
    page = here.open()
    here.ask("First?")
    here.answer()
    here.ask("Second?")
    here.answer(1)
    page.click("[aria-label='Answer again']")
    until(lambda: len(scripted.bodies) == 3)
    here.answer(1)
    assert scripted.bodies[2]["messages"] == scripted.bodies[1]["messages"]
    page.locator(".message.user").first.hover()
    page.click(".message.user:first-child [aria-label='Edit the question']")
    page.keyboard.press("Control+A")
    page.keyboard.type("Another?")
    page.keyboard.press("Enter")
    until(lambda: len(scripted.bodies) == 4)
    here.answer()
    assert scripted.bodies[3]["messages"] == [{"role": "user", "content": "Another?"}]
    assert page.locator(".message").count() == 2
    assert page.locator("#chat-name").inner_text() == "Another?"


def test_settings_are_sent(scripted, visit):
    here = visit(scripted.url)
    page = here.open()
    page.click("#settings-open")
    page.fill("#set-system", "Be brief.")
    page.fill("#set-tokens", "7")
    page.locator("#set-temperature").fill("0.5")
    page.click("#settings .primary")
    here.ask("Hello?")
    here.answer()
    body = scripted.bodies[0]
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["max_completion_tokens"], body["temperature"]) == (7, 0.5)
    assert "At most 7 tokens" in page.locator("#settings-summary").inner_text()


@pytest.mark.parametrize(
    ("script", "shown"),
    [
        (lambda body: cut("The image shows"), "The connection broke: this answer is not complete."),
        (lambda body: without_done(), "The connection broke: this answer is not complete."),
        (lambda body: failing(), "The engine has ended."),
        (
            lambda body: failed(400, "invalid_image", "messages[0].content[0]: not an image that Pillow can read"),
            "Not an image that Pillow can read.",
        ),
        (
            lambda body: failed(400, "context_length_exceeded", "the prompt has 9120 tokens, the context is 8192"),
            "The prompt has 9120 tokens, the context is 8192. Start a new chat, or send fewer images.",
        ),
    ],
)
def test_what_went_wrong_is_shown(scripted, visit, script, shown):
    scripted.script = script
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


async def without_done():
    yield "The image"
    raise ConnectionResetError("as the test wants it")


def test_a_busy_server_is_asked_again(scripted, visit):
    answers = [failed(503, "server_busy", "full", **{"Retry-After": "1"}), words("At last.")]
    scripted.script = lambda body: answers.pop(0)
    here = visit(scripted.url)
    page = here.open()
    here.ask("Hello?")
    page.wait_for_selector("text=The server is busy. Trying again in 1 s.")
    assert here.answer() == "At last."


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
    page.wait_for_function("document.querySelector('.media img').naturalWidth > 0")
    scripted.script = lambda body: words("Done.")
    page.click("text=Try again")
    assert here.answer() == "Done."
    assert scripted.bodies[0]["messages"] == scripted.bodies[1]["messages"]


def test_chats_are_kept_exported_and_deleted(scripted, visit):
    here = visit(scripted.url, accept_downloads=True)
    page = here.open()
    page.set_input_files("#files", DEMO / "first.png")
    here.ask("What is this?")
    here.answer()
    page.click("#chat-new")
    here.ask("Another chat")
    here.answer()
    page.reload()
    assert page.locator("#history-list li").count() == 2
    page.click("#history-list >> text=What is this?")
    assert here.answer() == "Yes."
    with page.expect_download() as download:
        page.click("#chat-export")
    exported = json.loads(download.value.path().read_text(encoding="utf-8"))
    assert exported["messages"][0]["content"][0]["image_url"]["url"].endswith(given("first.png")[2])
    assert exported["messages"][1] == {"role": "assistant", "content": "Yes."}
    assert exported["answers"][0]["is_complete"] is True and exported["answers"][0]["prompt_tokens"] == 212
    page.click("#history-clear")
    page.click("#confirm-yes")
    page.wait_for_selector("#welcome")
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert page.locator("#history-list li").count() == 0
    assert {url.removeprefix(scripted.url) for method, url in here.requests if method == "POST"} == {
        "/v1/chat/completions"
    }


def test_files_that_are_no_media_are_refused_by_name(scripted, visit):
    page = visit(scripted.url).open()
    empty = {"name": "empty.png", "mimeType": "image/png", "buffer": b""}
    letter = {"name": "letter.pdf", "mimeType": "application/pdf", "buffer": b"%PDF"}
    heic = {"name": "photo.HEIC", "mimeType": "", "buffer": b"\0\0\0\x18ftypheic"}
    page.set_input_files("#files", [letter, empty, heic])
    toasts = page.locator(".toasts").inner_text()
    assert "letter.pdf is neither an image nor a video." in toasts and "empty.png is empty." in toasts
    page.wait_for_selector("#tray .no-preview")  # no browser shows HEIC but Safari; the server may read it
    assert page.locator("#tray li").count() == 1
    page.keyboard.press("Enter")
    until(lambda: scripted.bodies)
    assert scripted.bodies[0]["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/heic;base64,")


def test_keyboard_only(scripted, visit):
    page = visit(scripted.url).open()
    assert page.evaluate("document.activeElement.id") == "chat-text"
    page.keyboard.type("Hello?")
    page.keyboard.press("Enter")
    page.wait_for_selector(".cost")
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(
            page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.innerText")
        )
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert (
            outline != "none" or seen[-1] == "" or "textarea" in page.evaluate("document.activeElement.tagName").lower()
        )
    for name in (
        "Attach images or videos",
        "Answer settings",
        "Copy the answer",
        "Answer again",
        "Chat",
        "Live",
        "Compare",
    ):
        assert name in seen, (name, seen)
    page.locator(".views a[data-view=live]").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#view-live:not([hidden])")


def test_what_screen_readers_are_told(scripted, visit):
    here = visit(scripted.url)
    page = here.open()
    here.ask("Hello?")
    here.answer()
    snapshot = page.locator("body").aria_snapshot()
    for line in (
        '- navigation "Views":',
        "- main:",
        '- heading "Chat about images and videos" [level=1]',
        '- log "Conversation":',
        '- heading "You" [level=3]',
        '- heading "Answer" [level=3]',
        '- textbox "Message"',
        '- button "Attach images or videos"',
        '- complementary "Chats":',
    ):
        assert line in snapshot, (line, snapshot)
    page.wait_for_function("document.getElementById('announcer').textContent === 'Answer: Yes.'")
    unnamed = page.evaluate(
        """[...document.querySelectorAll("button, input, select, textarea, a")].filter((node) =>
          !node.getAttribute("aria-label") && !node.innerText?.trim() && !node.textContent.trim() && !node.labels?.length
        ).map((node) => node.outerHTML)"""
    )
    assert unnamed == []
