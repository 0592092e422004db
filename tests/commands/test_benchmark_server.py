"""`benchmark --only server`: the server under load, and beside another program's."""

import json
import sys
import textwrap

import pytest
from support.command_lines import run

QUICK = ["--geometry", "tiny", "--runs", "1", "--image-size", "300x200", "--new-tokens", "6", "--quiet"]
PEER = '''
"""Stands in for mlx-vlm's server: the same answer to everybody."""

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert body["model"] and body["stream"]
        self.send_response(200)
        self.end_headers()
        for text in ("a", "b"):
            chunk = {"choices": [{"index": 0, "delta": {"content": text}}]}
            self.wfile.write(f"data: {json.dumps(chunk)}\\n\\n".encode())
        self.wfile.write(b"data: [DONE]\\n\\n")


parser = argparse.ArgumentParser()
for name in ("--model", "--host", "--port"):
    parser.add_argument(name)
arguments = parser.parse_args()
ThreadingHTTPServer((arguments.host, int(arguments.port)), Handler).serve_forever()
'''


def test_first_texts_gaps_and_answers_a_second_are_measured(monkeypatch, capsys, tmp_path):
    arguments = [*QUICK, "--only", "server", "--clients", "1", "--folder", tmp_path, "--json", tmp_path / "r.json"]
    result = run(monkeypatch, capsys, "benchmark", *arguments)
    assert result.status == 0 and result.err == "", result.err
    measured = json.loads((tmp_path / "r.json").read_text())["measurements"]
    named = {found["name"]: found["values"] for found in measured}
    assert len(named["text, 1 client: first text"]) == len(named["picture, 1 client: longest gap"]) == 1
    assert len(named["text, 1 client: answers"]) == 1 and named["text, 1 client: answers"][0] > 0
    assert "text beside a picture, 1 client: first text" in named


@pytest.mark.slow
def test_another_server_gets_the_same_load(monkeypatch, capsys, tmp_path):
    package = tmp_path / "peer" / "mlx_vlm"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "server.py").write_text(textwrap.dedent(PEER))
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={package.parent} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    arguments = [*QUICK, "--only", "server", "--clients", "1", "--folder", tmp_path, "--json", tmp_path / "r.json"]
    arguments += ["--peers-only", "--against", "mlx-vlm", "--peer-python", f"mlx-vlm={python}"]
    result = run(monkeypatch, capsys, "benchmark", *arguments)
    assert result.status == 0, result.err
    compared = json.loads((tmp_path / "r.json").read_text())["comparisons"]
    assert [found["name"] for found in compared] == [
        "first text, text, 1 client",
        "answers, text, 1 client",
        "first text, picture, 1 client",
        "answers, picture, 1 client",
        "first text, text beside a picture, 1 client",
    ]
    assert all(len(found["own"]) == len(found["theirs"]) == 1 for found in compared)
    assert {found["note"] for found in compared} == {"0 of 1 answers are the same"}
