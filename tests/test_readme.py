"""The commands of the README and of two pages with its details: those that need no download run as pasted, the others
name real options."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.server import ServerProcess, until

from mlx_smolvlm import generate, index, search, watch
from mlx_smolvlm.batch import __main__ as batch
from mlx_smolvlm.benchmark import __main__ as benchmark
from mlx_smolvlm.convert import __main__ as convert
from mlx_smolvlm.document import __main__ as document
from mlx_smolvlm.evaluate import __main__ as evaluate
from mlx_smolvlm.server import command as server

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "examples"))

import video_highlights  # noqa: E402

README = (ROOT / "README.md").read_text(encoding="utf-8")
DETAILS = [(ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("asking.md", "python.md")]
TEXT = "\n".join([README, *DETAILS])
SHELL = re.findall(r"^```bash\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
PYTHON = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
SET_UP = (
    "python3 -m venv .venv && source .venv/bin/activate\n",
    "apt-get install libopenblas0-pthread && export LD_PRELOAD=libopenblas.so.0\n",
    "pip install . && python -m mlx_smolvlm.generate\n",
    "pip install '.[test]' && pytest -n auto\n",
)
ONLINE = ("HuggingFaceTB/", "ibm-granite/", "vidore/")
LONG = "mlx_smolvlm.benchmark"
SERVED = ("mlx_smolvlm.server", "curl ")  # one serves until it is stopped, the other asks it
SHOWN = {  # what the output of a block must have, by an option in it
    "--json-schema": '{"shape": "circle", "color": "red"}\nRed.\n',
    "--kv-bits": "A large red circle at the top left.\n",
    "--adapter-out": "circle, blue, large\n",
    "--q-bits 2": "2 flips (2 only A right, 0 only B right)",
    "--speculate": '"drafted_tokens": 7, "accepted_tokens": 7}',
}
OFFLINE_BLOCKS = [
    # Calibrating takes as long as all the others. tests/convert/test_quality_command.py does the same with few samples.
    pytest.param(block, marks=[pytest.mark.slow] if "--calibrate" in block else [], id=block.split("\n")[0][:60])
    for block in SHELL
    if block not in SET_UP and not any(word in block for word in (*ONLINE, LONG, *SERVED))
]


@pytest.fixture
def checkout(tmp_path):
    """A folder with what the commands touch, in which they may write."""
    for name in ("mlx_smolvlm", "convert", "examples"):
        os.symlink(ROOT / name, tmp_path / name)
    return tmp_path


def run(command: list[str], folder: Path) -> str:
    """What a command prints. `python` and `mlx.launch` are this interpreter's, and the package is this checkout's."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_set_up_commands_are_there():
    assert [block for block in SHELL if block in SET_UP] == list(SET_UP)


def test_the_list_of_tasks_names_every_section_in_order():
    named = re.findall(r"\]\(#([\w-]+)\)", README.split("\n## ")[0])
    titles = re.findall(r"^## (.+)$", README, re.MULTILINE)
    anchors = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
    assert anchors == ["set-up", *named, "more"]


@pytest.mark.parametrize("block", OFFLINE_BLOCKS)
def test_commands_that_need_no_download_work_as_pasted(checkout, block):
    printed = run(["bash", "-euc", block], checkout)
    assert printed.strip()
    for option, answer in SHOWN.items():
        assert option not in block or answer in printed


@pytest.mark.parametrize("option", SHOWN)
def test_examples_show_what_the_options_are_good_for(option):
    assert len([block for block in SHELL if option in block and not any(word in block for word in ONLINE)]) == 1


def test_other_commands_use_options_that_exist():
    parsers = {
        "-m mlx_smolvlm.batch": batch._parser(),
        "-m mlx_smolvlm.benchmark": benchmark._parser(),
        "-m mlx_smolvlm.document": document._parser(),
        "-m mlx_smolvlm.generate": generate._parser(),
        "-m mlx_smolvlm.index": index._parser(),
        "-m mlx_smolvlm.search": search._parser(),
        "-m mlx_smolvlm.server": server._parser(),
        "-m mlx_smolvlm.watch": watch._parser(),
        "-m mlx_smolvlm.convert": convert._parser(),
        "-m mlx_smolvlm.evaluate": evaluate._parser(),
        "examples/video_highlights.py": video_highlights._parser(),
    }
    lines = [line for block in SHELL if any(word in block for word in (*ONLINE, LONG)) for line in block.splitlines()]
    lines += [line for block in SHELL if "--calibrate" in block for line in block.splitlines()]
    assert lines
    for line in lines:
        words = shlex.split(line)
        if words[0] == "mlx.launch":  # its own options are MLX's
            words = words[words.index("--") + 1 :]
        assert words[0] == "python"
        first = 3 if words[1] == "-m" else 2
        parsers[" ".join(words[1:first])].parse_args(words[first:])


@pytest.mark.parametrize("code", PYTHON)
def test_python_code_runs_as_pasted(checkout, code):
    answers = run([sys.executable, "-W", "error", "-c", code], checkout)
    assert ("circle" if "picture.png" in code else "The blue shape moves to the right.\nBlue.") in answers


def test_the_server_answers_what_is_asked_of_it(checkout):
    (start,) = [block for block in SHELL if SERVED[0] in block and ONLINE[0] not in block]
    assert start == "pip install '.[server]' && python -m mlx_smolvlm.server --open\n"
    (ask,) = [block for block in SHELL if SERVED[1] in block]
    (program,) = re.findall(r"^```py\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    with ServerProcess() as running:
        until(running.is_ready)
        place = running.url.removeprefix("http://")
        answer = json.loads(run(["bash", "-euc", ask.replace("127.0.0.1:8080", place)], checkout))
        assert answer["choices"][0]["message"]["content"] == "Red."
        program = program.replace("127.0.0.1:8080", place)
        assert run([sys.executable, "-c", program], checkout) == "Red."


def test_documents_that_are_linked_exist():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
