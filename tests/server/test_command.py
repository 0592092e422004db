"""`python -m mlx_smolvlm.server`: start, what it prints, how it stops, and how it refuses."""

import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path

import httpx
import pytest
from support.command_lines import assert_refused, run
from support.layout import ROOT
from support.server import DEMO, ServerProcess, data_url, question, until

from mlx_smolvlm.server.engine_thread import Engine
from mlx_smolvlm.server.running import ServerRun
from mlx_smolvlm.server.settings import ServerSettings

LONG = {
    "messages": [{"role": "user", "content": "Count"}],
    "max_tokens": 1500,
    "structured_outputs": {"regex": "[a-z ]{1000}"},
    "stream": True,
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_what_it_serves_and_stops_when_idle(number):
    with ServerProcess("--alias", "eyes") as server:
        until(server.is_ready)
        names = httpx.get(f"{server.url}/v1/models", trust_env=False).json()["data"][0]["aliases"]
        status, printed = server.stop(number)
    assert names == ["eyes"] and status == 0
    assert "model: smolvlm-demo" in printed and "limits: 8 answers at a time, 64 waiting" in printed
    assert "Traceback" not in printed


def test_it_stops_while_it_loads():
    with ServerProcess() as server:
        status, printed = server.stop(signal.SIGTERM)
    assert status == 0 and "Traceback" not in printed


def test_answers_in_flight_finish_or_end_with_an_error():
    with ServerProcess("--shutdown-s", "0.3", SMOLVLM_API_KEY="k") as server:
        until(server.is_ready)
        key = {"authorization": "Bearer k"}
        client = httpx.Client(base_url=server.url, headers=key, trust_env=False)
        with client, client.stream("POST", "/v1/chat/completions", json=LONG, timeout=20) as response:
            lines = response.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGTERM)
            events = [line for line in lines if line]
        status, printed = server.process.wait(20), server.process.stderr.read()
    assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "server_closing"
    assert status == 0 and "Traceback" not in printed


def test_a_second_signal_ends_it_at_once():
    with ServerProcess("--shutdown-s", "60") as server:
        until(server.is_ready)
        longer = LONG | {"max_tokens": 1950, "structured_outputs": {"regex": "[a-z ]{1900}"}, "n": 4}
        with httpx.stream(
            "POST", f"{server.url}/v1/chat/completions", json=longer, timeout=20, trust_env=False
        ) as response:
            lines = response.iter_lines()  # the client leaves with it
            next(lines)
            server.process.send_signal(signal.SIGINT)
            while not server.process.stderr.readline().startswith("stopping"):
                pass
            server.process.send_signal(signal.SIGINT)
            assert server.process.wait(20) == 130


def test_a_second_signal_counts_while_the_first_is_being_answered(monkeypatch):
    class Ended(BaseException):
        pass

    def end(status):
        raise Ended(status)

    run = ServerRun(ServerSettings(port=0))
    monkeypatch.setattr("os._exit", end)
    monkeypatch.setattr("mlx_smolvlm.server.running.say", lambda _: run._handle(signal.SIGTERM, None))
    monkeypatch.setattr(Engine, "is_idle", False)
    with contextlib.closing(run._socket), pytest.raises(Ended, match="143"):
        run._handle(signal.SIGINT, None)


def test_health_answers_soon_after_the_start():
    with ServerProcess() as server:
        until(server.is_ready)
        ready_s = time.monotonic() - server.started_s
        times = Path(f"/proc/{server.process.pid}/stat")
        if times.exists():  # the processor's time, which does not count what else the machine does: 0.55 s
            user, system = times.read_text().rpartition(")")[2].split()[11:13]
            assert (int(user) + int(system)) / os.sysconf("SC_CLK_TCK") < 1.2
    assert ready_s < 15  # 1.5 s on an idle machine


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--host", "0.0.0.0"], "set an API key"),
        (["--rows", "0"], "rows is 0, expected a whole number of at least 1"),
        (["--port", "70000"], "port is 70000"),
        (["--media-root", "/none"], "expected a folder"),
        (["--host", "127.0.0.1.x.invalid", "--insecure"], "choose another --host"),
        (["--kv-bits", "8", "--quantized-kv-start", "-1"], "quantized_kv_start is -1"),
        (["--kv-group-size", "32"], "kv_group_size has no effect without kv_bits"),
        (["--max-cache-gb", "nan"], "max_cache_bytes"),
        (["--cors-origin", "example.com"], "example.com"),
        (["--api-key", ""], "--api-key is empty"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(monkeypatch, capsys, arguments, problem):
    monkeypatch.delenv("SMOLVLM_API_KEY", raising=False)
    assert_refused(run(monkeypatch, capsys, "server", *arguments), problem)


def test_a_taken_port_is_said_in_one_line(monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_refused(
            run(monkeypatch, capsys, "server", "--port", port), f"cannot listen on 127.0.0.1:{port}: it is taken"
        )


def test_a_missing_model_is_said_in_one_line(monkeypatch, capsys, tmp_path):
    result = run(monkeypatch, capsys, "server", "--port", 0, "--model", tmp_path)
    address, line = result.err.splitlines(keepends=True)
    assert address.startswith("smolvlm server at http://127.0.0.1:")
    assert_refused(result._replace(err=line), str(tmp_path))


def test_a_missing_extra_is_said_in_one_line(monkeypatch, capsys):
    for name in [
        name for name in sys.modules if name.partition(".")[0] == "starlette" or name.startswith("mlx_smolvlm.server.")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette", None)
    assert_refused(run(monkeypatch, capsys, "server"), "pip install 'mlx-smolvlm[server]'")


def test_files_of_a_killed_server_are_removed_by_the_next(tmp_path):
    with ServerProcess(TMPDIR=str(tmp_path)) as server:
        until(server.is_ready)
        part = {"type": "video_url", "video_url": {"url": data_url(DEMO / "clip.mp4", "video/mp4")}}
        body = {**LONG, "messages": question("Count", part)}
        with httpx.stream(
            "POST", f"{server.url}/v1/chat/completions", json=body, timeout=20, trust_env=False
        ) as response:
            parts = response.iter_raw()  # the client leaves with it
            next(parts)
            assert any(tmp_path.iterdir())
            server.process.kill()
            server.process.wait(20)
    assert any(tmp_path.iterdir())
    with ServerProcess(TMPDIR=str(tmp_path)):
        assert not any(tmp_path.iterdir())


def test_the_docs_have_each_limit_with_its_option_and_default(monkeypatch, capsys):
    text = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")
    cells = [re.split(r" *\| *", line.strip("| ")) for line in text.splitlines() if line.startswith("| ")]
    told = {row[1].strip("`"): row[2] for row in cells if len(row) == 3 and row[1].startswith("`--")}
    listed = run(monkeypatch, capsys, "server", "--help").out.split()
    assert [option for option in told if option not in listed] == []
    limits = {
        field.name: field.default
        for field in dataclasses.fields(ServerSettings)
        if type(field.default) in (int, float) and field.name not in ("port", "kv_group_size", "quantized_kv_start")
    }
    names = {option: re.sub("_[gm]b$", "_bytes", option.strip("-").replace("-", "_")) for option in told}
    assert {names[option]: _number(value) for option, value in told.items()} == limits


def _number(told: str) -> float:
    """A default as the docs have it."""
    number, _, unit = told.replace(",", "").partition(" ")
    return float(number) * {"": 1, "s": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}[unit]
