"""The judge: asked only about what rules leave open; one that fails changes no score by rules."""

import http.server
import json
import threading
from contextlib import contextmanager

import pytest
from PIL import Image
from support.command_lines import assert_refused, run


@contextmanager
def served(reply):
    """An OpenAI-compatible address whose model says `reply(prompt)`; (address, prompts so far)."""
    prompts = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert (self.path, body["model"], body["temperature"]) == ("/v1/chat/completions", "j", 0)
            prompts.append(body["messages"][0]["content"])
            content = json.dumps({"choices": [{"message": {"content": reply(prompts[-1])}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", prompts
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def data(tmp_path):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "1.png")
    row = {"question": "What shape is it?", "images": ["1.png"]}
    rows = [
        {**row, "answer": "the wrong words"},
        {**row, "answer": "unlike", "scorer": "relaxed"},
        {**row, "A": "an elephant of gold", "B": "the word that is meant here", "answer": "B"},
    ]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path / "x.jsonl"


def summary(folder):
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def test_the_judge_settles_what_rules_leave_open(monkeypatch, capsys, data, tmp_path):
    out = tmp_path / "out"
    with served(lambda prompt: "B" if "Which option" in prompt else "Yes.") as (url, prompts):
        found = run(
            monkeypatch, capsys, "evaluate", data, "--out", out, "--judge", url, "--judge-model", "j", "--quiet"
        )
    assert found.status == 0, found.err
    assert "Right answer: the wrong words" in prompts[0]
    assert "B. the word that is meant here" in prompts[1]
    assert len(prompts) == 2
    assert summary(out)["sets"]["x"]["score"] == 0
    assert summary(out)["judge"]["sets"]["x"]["score"] == pytest.approx(66.6667)


def test_a_judge_that_cannot_be_reached_is_named(monkeypatch, capsys, data, tmp_path):
    out = tmp_path / "out"
    url = "http://127.0.0.1:9"
    found = run(monkeypatch, capsys, "evaluate", data, "--out", out, "--judge", url, "--judge-model", "j", "--quiet")
    assert found.status == 1
    assert "2 rows keep the score by rules: the judge cannot be reached" in found.out
    assert summary(out)["sets"]["x"]["score"] == 0
    assert summary(out)["judge"]["sets"]["x"]["score"] == 0
    assert '"error": "the judge cannot be reached' in (out / "judged.jsonl").read_text(encoding="utf-8")


def test_a_judge_needs_an_address_and_a_name(monkeypatch, capsys, data):
    for words, problem in [
        (["--judge", "http://localhost"], "belong together"),
        (["--judge", "localhost", "--judge-model", "j"], "expected an address"),
        (["--judge", "http://a b/v1", "--judge-model", "j"], "expected an address"),
        (["--judge", "http://[::1/v1", "--judge-model", "j"], "expected an address"),
        (["--judge", "http://me:secret@x/v1", "--judge-model", "j"], "names a user or password"),
    ]:
        assert_refused(run(monkeypatch, capsys, "evaluate", data, "--out", "x", *words), problem)
