"""The view Chat in a real browser."""

import base64
import json
import re

import pytest
from support.browser import BUSY_S, drop, paste
from support.scripted_server import words
from support.server import DEMO, until

from mlx_smolvlm.server.settings import ServerSettings


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
    assert re.search(r"to first token\s+[\d.]+ s", cost) and "2 images" in cost and "85 tokens" in cost
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_one_of_several_models_is_chosen(scripted, visit):
    """Which the page offers only where there are several, and keeps until it is gone from the server."""
    here = visit(scripted.url)
    page = here.open()
    page.click("#settings-open")
    assert page.locator("#set-model").is_hidden()
    page.click("#settings .primary")
    here.ask("Hello?")
    here.answer()
    scripted.models = ["m", "charts", "m:base"]
    for models, name in ((scripted.models, "charts"), (["m", "m:base"], "m")):
        scripted.models = models
        page.reload()
        page.wait_for_selector("#server-text:text-is('m')")
        page.click("#settings-open")
        select = page.locator("#set-model")
        assert select.locator("option").all_inner_texts() == models
        assert select.input_value() == "m"
        if name == "charts":
            select.select_option(name)
        page.click("#settings .primary")
        here.ask("Hello?")
        here.answer()
        assert page.locator("#server-text").inner_text() == name
    assert [body.get("model") for body in scripted.bodies] == [None, "charts", "m"]


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_chat_that_is_too_large_is_refused_before_its_upload(scripted, visit):
    scripted.app.state.settings = ServerSettings(max_body_bytes=100_000)
    here = visit(scripted.url)
    page = here.open()
    page.set_input_files("#files", DEMO / "first.png")
    here.ask("What is this?")
    fault = page.locator(".message .fault").inner_text()
    assert "have 0.1 MB as they are sent; the server takes at most 0.1 MB" in fault
    assert scripted.bodies == []


def test_keyboard_only(scripted, visit):
    page = visit(scripted.url).open()
    assert page.evaluate("document.activeElement.id") == "chat-text"
    page.keyboard.type("Hello?")
    page.keyboard.press("Enter")
    page.wait_for_selector(".cost")
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        tag, name, outline = page.evaluate(
            """() => { const node = document.activeElement, name = node.getAttribute("aria-label") || node.innerText;
              return [node.tagName, name, getComputedStyle(node).outlineStyle]; }"""
        )
        seen.append(name)
        assert outline != "none" or tag in ("BODY", "TEXTAREA"), name  # the box around the text shows its focus
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
    until(
        lambda: page.evaluate("document.getElementById('announcer').textContent === 'The answer is complete.'"), BUSY_S
    )
    unnamed = page.evaluate(
        """[...document.querySelectorAll("button, input, select, textarea, a")]
          .filter((node) => !node.closest("[hidden], dialog:not([open])"))
          .filter((node) => !node.getAttribute("aria-label") && !node.textContent.trim() && !node.labels?.length)
          .map((node) => node.outerHTML)"""
    )
    assert unnamed == []
