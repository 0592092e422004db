"""The view Live: a camera, its stop, its limits, and what becomes of the captions."""

import base64
import io
import json

import pytest
from PIL import Image
from support.browser import CAMERA_SCENES, FOREIGN_HOST, drop, launched
from support.scripted_server import cut, failed, words
from support.server import DEMO, until

TRACK = "window.track = document.getElementById('live-video').srcObject.getTracks()[0]"
IS_OFF = "track.readyState === 'ended' && !document.getElementById('live-video').srcObject"
HIDE = """() => { Object.defineProperty(document, "visibilityState", {configurable: true, value: "hidden"});
  document.dispatchEvent(new Event("visibilitychange")); }"""


def begin(here, interval: str = "0"):
    """Turn the camera on, and wait for the first caption."""
    page = here.open("live")
    page.select_option("#live-interval", interval)
    page.click("#live-start")
    page.wait_for_selector("#lamp:has-text('Camera on')")
    page.evaluate(TRACK)
    return page


def test_the_demo_model_sees_what_the_camera_shows(server, visit):
    page = begin(visit(server.url, "camera"), "0.5")
    for color, _, place, *_ in CAMERA_SCENES:
        page.wait_for_selector(f"#captions li:has-text('A large {color} square {place}.')")
    assert page.locator("#m-latency").inner_text().endswith(" s")


def test_one_request_in_flight_and_the_newest_frame_next(scripted, visit):
    scripted.script = lambda body: words("A slow answer.", 0.2)
    page = begin(visit(scripted.url, "camera"))
    until(lambda: len(scripted.bodies) == 3)
    assert scripted.most_in_flight == 1
    assert int(page.locator("#m-dropped").inner_text()) >= 4  # 10 frames a second, and 0.6 s an answer
    page.click("#live-stop")
    content = scripted.bodies[0]["messages"][0]["content"]
    assert content[0]["image_url"]["detail"] == "low" and content[1]["text"] == "What do you see?"
    frame = Image.open(io.BytesIO(base64.b64decode(content[0]["image_url"]["url"].partition(",")[2])))
    assert (frame.format, frame.size) == ("JPEG", (320, 240))  # the camera is smaller than what is scaled to


@pytest.mark.parametrize("way", ["stop", *(pytest.param(way, marks=pytest.mark.slow) for way in ("leave", "hide"))])
def test_the_camera_is_off_afterwards(scripted, visit, way):
    scripted.script = lambda body: words("one two three " * 100, 0.02)
    page = begin(visit(scripted.url, "camera"))
    page.wait_for_selector("#now:has-text('one')")
    assert page.evaluate("track.readyState") == "live"
    if way == "stop":
        page.click("#live-stop")
    elif way == "leave":
        page.click("[data-view=compare]")
    else:
        page.evaluate(HIDE)
        page.wait_for_selector("#captions :text('The camera was turned off, as the page was hidden.')")
    assert page.evaluate(IS_OFF)
    assert page.locator("#lamp").is_hidden()
    until(lambda: scripted.num_in_flight == 0)
    assert scripted.num_left == 1
    num_asked = len(scripted.bodies)
    page.wait_for_timeout(300)
    assert len(scripted.bodies) == num_asked


@pytest.mark.slow
def test_nothing_is_sent_while_paused(scripted, visit):
    page = begin(visit(scripted.url, "camera"))
    until(lambda: scripted.bodies)
    page.click("#live-pause")
    assert page.locator("#live-pause").get_attribute("aria-pressed") == "true"
    page.wait_for_timeout(100)
    num_asked = len(scripted.bodies)
    page.wait_for_timeout(300)
    assert len(scripted.bodies) == num_asked
    page.click("#live-pause")
    until(lambda: len(scripted.bodies) > num_asked)


@pytest.mark.slow
def test_a_window_of_frames_is_sent_as_a_video(scripted, visit):
    page = visit(scripted.url, "camera").open("live")
    page.select_option("#live-window", "4")
    page.select_option("#live-spacing", "0.25")
    assert page.input_value("#live-prompt") == "What happens in this video?"
    page.click("#live-start")
    until(lambda: scripted.bodies)
    body = scripted.bodies[0]
    header, *frames = body["messages"][0]["content"][0]["video_url"]["url"].split(",")
    assert header == "data:video/jpeg;base64" and len(frames) == 4
    assert {Image.open(io.BytesIO(base64.b64decode(frame))).format for frame in frames} == {"JPEG"}
    assert body["media_io_kwargs"] == {"video": {"fps": 4}}


def test_a_refused_camera_and_an_insecure_address_are_explained(scripted, visit):
    page = visit(scripted.url).open("live")
    page.click("#live-start")
    page.wait_for_selector("#stage:has-text('The camera was refused')")
    assert page.locator("#live-start").is_enabled()
    page = visit(scripted.url.replace("127.0.0.1", FOREIGN_HOST)).open("live")
    page.wait_for_selector("#stage:has-text('The camera needs a secure address')")
    assert FOREIGN_HOST in page.locator("#stage code").inner_text()
    assert page.locator("#live-start").is_disabled()
    page.check("[name=source][value=file]", force=True)
    assert page.locator("#live-start").is_enabled()  # files need no secure address


@pytest.mark.slow
def test_it_goes_on_after_faults(scripted, visit):
    answers = [
        lambda: failed(503, "server_busy", "full", **{"Retry-After": "1"}),
        lambda: cut("A part"),
        lambda: words("All is well."),
    ]
    scripted.script = lambda body: (answers.pop(0) if len(answers) > 1 else answers[0])()
    page = visit(scripted.url, "camera").open("live")
    page.click("#live-start")
    page.wait_for_selector("#now:has-text('The server is busy.')")
    page.wait_for_selector("#captions .fault:has-text('The connection broke during the answer')")
    page.wait_for_selector("#captions li:has-text('All is well.')")


@pytest.mark.slow
def test_a_request_that_is_refused_stops_it(scripted, visit):
    scripted.script = lambda body: failed(400, "invalid_value", "this model takes no images")
    page = visit(scripted.url, "camera").open("live")
    page.click("#live-start")
    page.wait_for_selector("#captions .fault:has-text('this model takes no images')")
    assert page.locator("#live-start").is_visible() and page.locator("#lamp").is_hidden()


@pytest.mark.slow
def test_captions_as_files(scripted, visit):
    page = visit(scripted.url, "camera", accept_downloads=True).open("live")
    page.click("#live-start")
    page.wait_for_selector("#captions small:has-text('times')")
    page.click("#live-stop")
    kept = {}
    for kind in ("json", "vtt", "srt"):
        with page.expect_download() as download:
            page.click(f"[data-export={kind}]")
        assert download.value.suggested_filename.endswith(f".{kind}")
        kept[kind] = download.value.path().read_text(encoding="utf-8")
    captions = json.loads(kept["json"])["captions"]
    assert {caption["text"] for caption in captions} == {"Yes."} and len(captions) >= 2
    assert all(caption["end_s"] >= caption["start_s"] and caption["latency_s"] > 0 for caption in captions)
    assert kept["vtt"].startswith("WEBVTT\n\n00:00:00.") and kept["vtt"].count("-->") == 1  # equal ones in turn are one
    assert kept["srt"].startswith("1\n00:00:00,") and "\nYes.\n" in kept["srt"]


def test_cues_do_not_overlap_and_hold_any_text(scripted, visit):
    page = visit(scripted.url).open("live")
    captions = [
        {"start_s": 0.0, "end_s": 2.5, "text": "a --> b & <c>"},
        {"start_s": 2.0, "end_s": 3.0, "text": "two\n\nlines"},
        {"start_s": 3661.5, "end_s": 3661.6, "text": "late"},
    ]
    vtt, srt = page.evaluate(
        """async (list) => { const captions = await import("/page/captions.js");
          return [captions.asVtt(list), captions.asSrt(list)]; }""",
        captions,
    )
    assert vtt == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:02.000\na --&gt; b &amp; &lt;c&gt;\n\n"
        "00:00:02.000 --> 01:01:01.500\ntwo\nlines\n\n01:01:01.500 --> 01:01:02.000\nlate\n"
    )
    assert srt.startswith("1\n00:00:00,000 --> 00:00:02,000\na → b & <c>\n\n2\n")


@pytest.mark.slow
def test_a_video_file_is_played_and_described(scripted, visit):
    page = visit(scripted.url).open("live")
    page.select_option("#live-interval", "0.5")
    clip = base64.b64encode((DEMO / "clip.mp4").read_bytes()).decode()
    drop(page, "#view-live", ("clip.mp4", "video/mp4", clip))
    page.wait_for_selector("#lamp:has-text('Playing')")
    page.wait_for_selector("#captions li:has-text('Yes.')")
    until(lambda: len(scripted.bodies) > 1)
    page.click("#live-stop")
    assert page.evaluate("document.getElementById('live-video').getAttribute('src')") is None


@pytest.mark.slow
def test_the_demo_model_tells_the_direction_in_a_video_that_is_played(server, visit):
    page = visit(server.url).open("live")
    page.select_option("#live-window", "6")
    page.select_option("#live-spacing", "1")
    page.check("[name=source][value=file]", force=True)
    page.click("text=Try the sample")
    page.wait_for_selector("#captions li:has-text('The blue shape moves to the right.')", timeout=30000)
    page.wait_for_selector("#live-start:visible", timeout=30000)  # the end of the video ends it


@pytest.mark.slow
def test_no_camera_is_explained(scripted, player):
    with launched(player) as browser:
        page = browser.new_context(permissions=["camera"]).new_page()
        page.goto(f"{scripted.url}/#live")
        page.wait_for_selector("html[data-ready]")
        page.click("#live-start")
        page.wait_for_selector("#stage:has-text('There is no camera')")


@pytest.mark.slow
def test_the_screen(scripted, visit):
    page = visit(scripted.url).open("live")
    page.check("[name=source][value=screen]", force=True)
    page.evaluate(
        """() => { navigator.mediaDevices.getDisplayMedia = async () => {
          const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
          const paint = () => { pen.fillRect(0, 0, 99, 99); requestAnimationFrame(paint); };
          paint();
          return canvas.captureStream(10); }; }"""
    )  # no screen is to be had without a display
    page.click("#live-start")
    page.wait_for_selector("#lamp:has-text('Screen shared')")
    page.wait_for_selector("#captions li:has-text('Yes.')")
    page.evaluate(TRACK)
    page.evaluate(HIDE)  # who shares the screen looks elsewhere
    num_asked = len(scripted.bodies)
    until(lambda: len(scripted.bodies) > num_asked)
    page.click("#live-stop")
    assert page.evaluate(IS_OFF)
