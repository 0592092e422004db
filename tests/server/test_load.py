"""Under load: streams go on while long prompts are read, /health stays quick, and memory does not grow."""

import io
import json
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from support.server import ASKED, ServerProcess, data_url, image_part, question, until

from mlx_smolvlm import load
from mlx_smolvlm.benchmark.generated_inputs import prompt_of, write_picture
from mlx_smolvlm.benchmark.geometries import GEOMETRIES, make_checkpoint

HEALTH_S = 0.05


def jpeg(random) -> bytes:
    file = io.BytesIO()
    Image.fromarray(random.integers(0, 255, (96, 128, 3), dtype=np.uint8)).save(file, "JPEG")
    return file.getvalue()


class Watch(threading.Thread):
    """Asks for /health all the time; `seconds` has how long each answer took."""

    def __init__(self, url):
        super().__init__()
        self.url, self.seconds, self.stopping = url, [], threading.Event()

    def run(self):
        with httpx.Client(base_url=self.url, trust_env=False, timeout=20) as client:
            while not self.stopping.wait(0.01):
                start = time.perf_counter()
                assert client.get("/health").status_code == 200
                self.seconds.append(time.perf_counter() - start)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.join()

    @property
    def p99_s(self):
        return sorted(self.seconds)[int(len(self.seconds) * 0.99)]


def stream(url, messages, arrivals, max_tokens):
    """Note when each text of an answer comes, and of how many tokens it is: parts of a character wait for the rest."""
    body = {"messages": messages, "max_tokens": max_tokens, "stream": True, "return_token_ids": True}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=300, trust_env=False) as response:
        for line in response.iter_lines():
            if '"delta":{"content":"' in line:
                (choice,) = json.loads(line.removeprefix("data: "))["choices"]
                arrivals.append((time.perf_counter(), len(choice["token_ids"])))


def gaps_between_tokens(streams):
    """Seconds between one token and the next, the longest last."""
    pairs = [pair for arrivals in streams for pair in pairwise(list(arrivals))]
    return sorted(after - before for (before, _), (after, num_tokens) in pairs if num_tokens == 1)


@pytest.mark.parametrize(
    ("name", "tokens", "side", "new_tokens"),
    [("tiny", 400, 256, 60), pytest.param("overhead", 6000, 2048, 1500, marks=pytest.mark.slow)],
)
def test_streams_go_on_while_long_prompts_are_read(tmp_path, name, tokens, side, new_tokens, pytestconfig):
    folder = make_checkpoint(GEOMETRIES[name], "float32", tmp_path / name)
    processor = load(folder, dtype="float32")[1]
    page = image_part(write_picture(tmp_path / "page.jpg", (side, side)).read_bytes())
    long_text = [{"role": "user", "content": prompt_of(processor, tokens)}]
    with ServerProcess("--model", str(folder), "--log-level", "error") as server, ThreadPoolExecutor(8) as pool:
        until(server.is_ready)
        arrivals = [[] for _ in range(4)]
        streams = [
            pool.submit(stream, server.url, question(f"{number}"), arrivals[number], new_tokens) for number in range(4)
        ]
        until(lambda: all(len(each) > 10 for each in arrivals))
        alone_s = statistics.median(gaps_between_tokens(arrivals))
        with Watch(server.url) as watch:
            late, short = [], []
            long_ones = (question("?", page), long_text)
            others = [pool.submit(stream, server.url, messages, late, 2) for messages in long_ones]
            stream(server.url, question("short"), short, 2)
            for answer in [*others, *streams]:
                answer.result()
        assert late and short and min(short) < max(late)  # the short newcomer has not waited for the long ones
        gaps = gaps_between_tokens(arrivals)
        if pytestconfig.getoption("--slow"):  # on an idle machine: other work would count, too
            assert gaps[-1] <= 2 * max(0.1, 2 * alone_s)
            assert watch.p99_s < HEALTH_S


@pytest.mark.slow
def test_memory_is_flat():
    """1,000 frames of a camera, 500 pictures and 200 answers that are left, after a warm-up."""
    random = np.random.default_rng(0)
    bounds = ["--max-prefix-mb", "4", "--max-feature-mb", "1", "--log-level", "error"]
    with ServerProcess(*bounds) as server, ThreadPoolExecutor(4) as pool:
        until(server.is_ready)
        client = httpx.Client(base_url=server.url, trust_env=False, timeout=60)

        def rss_mb():
            lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
            return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024

        def ask(detail):
            part = {"type": "image_url", "image_url": {"url": data_url(jpeg(random), "image/jpeg"), "detail": detail}}
            body = {"messages": question(ASKED, part), "max_tokens": 8}
            assert client.post("/v1/chat/completions", json=body).status_code == 200

        def leave(number):
            body = {"messages": question(ASKED, image_part(jpeg(random))), "max_tokens": 200, "stream": True}
            with client.stream("POST", "/v1/chat/completions", json=body) as response:
                for count, _ in enumerate(response.iter_lines()):
                    if count > number % 9:
                        break

        sizes = []
        for _ in range(12):
            list(pool.map(ask, ["low"] * 100 + ["auto"] * 50))
            list(pool.map(leave, range(20)))
            sizes.append(rss_mb())

        def is_idle():
            metrics = client.get("/metrics").text
            return "num_requests_running 0\n" in metrics and "num_requests_waiting 0\n" in metrics

        until(is_idle)
        client.close()
    assert np.median(sizes[-3:]) < 1.02 * np.median(sizes[2:5])
