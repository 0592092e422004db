"""What the tests of media share: a server, and a command that must be quick and leave nothing behind."""

import gc
import time
from collections.abc import Iterator

import pytest
from support.command_lines import run
from support.http_server import Server, serving
from support.leftovers import LONGEST_S, held
from support.media import video_path

import mlx_smolvlm


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}"


@pytest.fixture(scope="module")
def warm(checkpoint):
    """What is made once and kept is there: libraries, MLX's threads."""
    pair = mlx_smolvlm.load(checkpoint("smolvlm_256m"))
    mlx_smolvlm.generate_text(*pair, "What?", videos=[str(video_path("clip"))], max_tokens=2)
    gc.collect()
    gc.freeze()  # `held` collects what is left behind, not what is there for good


@pytest.fixture
def generate(monkeypatch, capsys, checkpoint, warm):
    """A function from options to the result of a run, which must be quick and leave nothing behind."""

    def checked(*options):
        model = ("--model", checkpoint("smolvlm_256m"), "--max-tokens", 2)
        before, start = held(), time.monotonic()
        result = run(monkeypatch, capsys, "generate", *model, *options)
        assert time.monotonic() - start < LONGEST_S
        while held() != before and time.monotonic() - start < LONGEST_S:  # the threads of a test's server, closing
            time.sleep(0.05)
        assert held() == before
        return result

    return checked
