"""Python within a process that is not Python, as the Swift package has it: by its C part alone."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from support.layout import ROOT

SOURCES = ROOT / "examples" / "swift" / "Sources" / "CPythonRuntime"
COMPILER = shutil.which("gcc") or shutil.which("cc")
STRICT = ["-std=c11", "-Wall", "-Wextra", "-Werror"]
ENGINE = '''
import json, sys, threading

class Engine:
    """Tells once what it sees, as its only event."""

    def __init__(self):
        self.asked, self.has_told, self.calls = threading.Event(), False, []

    def submit(self, message, attachments):
        self.calls.append(["submit", message, [data.decode() for data in attachments]])

    def cancel(self, number):
        self.calls.append(["cancel", number])

    def push_frame(self, *frame):
        self.calls.append(["push_frame", len(frame), frame[0], frame[5], frame[6]])
        self.asked.set()
        return True

    def step(self, seconds):
        if self.has_told or not self.asked.wait(seconds):
            self.asked.clear()
            threading.Event().wait(seconds if self.has_told else 0)
            return None
        self.has_told = True
        try:
            json.loads("[" * 5000 + "]" * 5000)
            nested = "read"
        except RecursionError:
            nested = "refused"
        with open(sys.path[0] + "/\\u00fcber.txt") as file:
            umlaut = file.read()
        seen = {"prefix": sys.prefix, "nested": nested, "umlaut": umlaut, "calls": self.calls}
        return json.dumps({**seen, "isolated": sys.flags.isolated})
'''
COMPILING = '''
import json
import mlx.core as mx

class Engine:
    """Computes by a compiled function, and tells what."""

    def submit(self, message, attachments): pass
    def cancel(self, number): pass
    def push_frame(self, *frame): return True

    def step(self, seconds):
        return json.dumps(mx.compile(lambda x: mx.exp(x) * 2 + x)(mx.zeros(2)).tolist())
'''


def libraries() -> list[Path]:
    """The shared libraries of Python that are installed beside this one, and this one's."""
    folders = [Path(sysconfig.get_config_var("LIBDIR") or "/none"), Path(sys.base_prefix) / "lib"]
    folders += [Path("/usr/lib") / (sysconfig.get_config_var("MULTIARCH") or "none")]
    folders += Path(sys.base_prefix).parent.glob("3.1[1-9]*/lib")
    found = {path.resolve() for folder in folders for path in folder.glob("libpython3.1[1-9].so.1.0")}
    return sorted(found)


LIBRARIES = libraries()
OWN = [path for path in LIBRARIES if f"python{sys.version_info[0]}.{sys.version_info[1]}." in path.name]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    if COMPILER is None or not Path("/proc").is_dir():
        pytest.skip("no C compiler on Linux")
    file = tmp_path_factory.mktemp("embedding") / "embedding"
    sources = [Path(__file__).parent / "embedding.c", SOURCES / "python_runtime.c"]
    command = [COMPILER, *STRICT, f"-I{SOURCES / 'include'}", *map(str, sources)]
    subprocess.run([*command, "-o", str(file), "-ldl", "-lpthread"], check=True, timeout=120)
    return file


@pytest.fixture(scope="module")
def later(program):
    """A library that starts as those of Python 3.14 do."""
    file = program.parent / "liblater.so"
    command = [COMPILER, *STRICT, "-shared", "-fPIC", str(Path(__file__).parent / "later_python.c"), "-o", str(file)]
    command += ["-Wl,--no-as-needed", str(OWN[0]), f"-Wl,-rpath,{OWN[0].parent}", "-ldl"]
    subprocess.run(command, check=True, timeout=120)
    return file


@pytest.fixture
def package(tmp_path):
    (tmp_path / "mlx_smolvlm").mkdir()
    (tmp_path / "mlx_smolvlm" / "__init__.py").write_text("")
    (tmp_path / "mlx_smolvlm" / "bridge.py").write_text(ENGINE)
    (tmp_path / "über.txt").write_text("found")
    return tmp_path


def run(program: Path, library: Path | str, python: Path | str, package: Path | str, end: str = "return", **more: str):
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "PYTHONPATH": "/nowhere", **more}
    command = [str(program), str(library), str(python), str(package), end]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return done.stdout.splitlines()


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name + " of " + path.parts[-3])
def test_every_python_starts_isolated(program, package, library):
    version = library.name.removeprefix("libpython").removesuffix(".so.1.0")
    base = next(
        folder for folder in (library.parent.parent, Path("/usr")) if (folder / "lib" / f"python{version}").is_dir()
    )
    starts_isolated(program, package, library, base, version)


@pytest.mark.skipif(not OWN, reason="needs the library of this Python")
def test_a_python_that_starts_in_the_way_of_3_14_does_so(program, later, package):
    starts_isolated(program, package, later, Path(sys.base_prefix), f"{sys.version_info[0]}.{sys.version_info[1]}")
    (line,) = run(program, later, "/refused/bin/python", package)
    assert line == "error: Python does not start: refused by a test"


def starts_isolated(program, package, library, base, version):
    environment = package / "environment"
    (environment / "bin").mkdir(parents=True)
    (environment / "pyvenv.cfg").write_text(f"home = {base / 'bin'}\nversion = {version}.0\n")
    lines = run(program, library, environment / "bin" / "python", package)
    assert {"handlers 1 1", "wanted 1"} < set(lines)
    seen = json.loads(next(line for line in lines if line.startswith("{")))
    assert seen.pop("nested") in ("read", "refused")  # and no crash: the thread's stack is large enough
    assert seen == {
        "prefix": str(environment),
        "umlaut": "found",
        "isolated": 1,
        "calls": [["submit", '{"request": "ping"}', ["abc"]], ["cancel", 7], ["push_frame", 7, 3, "bgra", 0.5]],
    }


def test_what_cannot_start_is_one_line_and_the_process_goes_on(program, package, tmp_path):
    assert run(program, "/no/library.so", "/no/bin/python", package)[0].startswith("error: /no/library.so")
    assert "is no Python 3.11 or later" in run(program, "libm.so.6", "/no/bin/python", package)[0]
    if not OWN:
        return
    alone = tmp_path / "alone" / OWN[0].name  # without a standard library beside it
    alone.parent.mkdir()
    shutil.copy(OWN[0], alone)
    (line,) = run(program, alone, tmp_path / "none" / "bin" / "python", tmp_path / "empty")
    assert line.startswith("error: ") and line.isprintable()


@pytest.mark.skipif(not OWN or sys.prefix == sys.base_prefix, reason="needs a virtual environment and its library")
def test_a_library_of_another_version_or_environment_is_refused(program, package):
    python = Path(sys.prefix) / "bin" / "python"
    others = [path for path in LIBRARIES if path.name != OWN[0].name]
    for library in others:
        (line,) = run(program, library, python, ROOT)
        assert line.startswith("error: ") and line.isprintable()


@pytest.mark.skipif(not OWN or sys.prefix == sys.base_prefix, reason="needs a virtual environment and its library")
def test_the_real_engine_answers_and_the_process_ends_cleanly(program):
    lines = run(program, OWN[0], Path(sys.prefix) / "bin" / "python", ROOT)
    event = json.loads(next(line for line in lines if line.startswith("{")))
    assert (event["event"], event["kind"]) == ("error", "invalid_request") and "no id" in event["message"]


@pytest.mark.skipif(not OWN or sys.prefix == sys.base_prefix, reason="needs a virtual environment and its library")
@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_a_process_in_which_mlx_has_compiled_a_function_ends_cleanly(program, package, rounds):
    """mlx 0.32.1 aborts when a thread ends that has."""
    (package / "mlx_smolvlm" / "bridge.py").write_text(COMPILING)
    for _ in range(rounds):
        assert "[2.0, 2.0]" in run(program, OWN[0], Path(sys.prefix) / "bin" / "python", package, "exit")
