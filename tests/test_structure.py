"""What the layout promises: a small top, names used once, short files, public names, light imports."""

import ast
import json
import os
import re
import subprocess
import sys
from collections import Counter

import pytest
from support.layout import MODULES, PACKAGE, ROOT, modules_of, tree_of

import mlx_smolvlm


def test_the_top_is_small():
    top = {path.name for path in PACKAGE.iterdir()} - {"__init__.py", "py.typed", "__pycache__"}
    assert len(top) <= 25, sorted(top)


def test_no_name_stands_for_two_things():
    """Neither two modules, nor two classes, nor a room and a module other than its main one."""
    names = Counter(name[-1] for name in MODULES if name[-1] not in ("__init__", "__main__"))
    trees = [tree_of(path) for path in MODULES.values()]
    classes = (node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef))
    names += Counter(name for name in classes if not name.startswith("_"))
    assert [name for name, count in names.items() if count > 1] == []
    rooms = {folder: name for name in MODULES for folder in name[:-1]}
    assert [name for name in MODULES if name[-1] in rooms and name[-1] != (name[-2:-1] or name)[0]] == []


def test_the_benchmarks_worker_runs_in_any_interpreter():
    worker = tree_of(PACKAGE / "benchmark" / "worker.py")
    imports = {
        name.split(".")[0]
        for node in worker.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert imports <= sys.stdlib_module_names


def test_public_names_are_these():
    assert mlx_smolvlm.__all__ == [
        "load",
        "AdapterSet",
        "stream_generate",
        "generate_text",
        "GenerationResponse",
        "generate_batch",
        "BatchRequest",
        "BatchAnswer",
        "Rows",
        "RowEvent",
        "Session",
        "GenerationOptions",
        "MediaOptions",
        "stream_captions",
        "Caption",
        "read_document",
        "PageReading",
        "load_retriever",
        "Retriever",
        "SmolVLM",
        "Processor",
        "Inputs",
        "SampledVideo",
        "PromptCache",
        "FeatureCache",
        "FetchPolicy",
        "DEMO_MODEL",
    ]
    for name in mlx_smolvlm.__all__:
        assert getattr(mlx_smolvlm, name) is not None


def test_no_public_name_shadows_a_module():
    assert not set(mlx_smolvlm.__all__) & {word for name in MODULES for word in name}


def run_python(code: str, **environment: str) -> str:
    command, variables = [sys.executable, "-c", code], {**os.environ, **environment}
    return subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True, timeout=120
    ).stdout


def test_importing_is_light_and_changes_nothing():
    """Neither the heavy libraries, nor those that few prompts need; no limits, signals or environment changed."""
    report = json.loads(
        run_python(
            """
import json, os, resource, signal, sys, threading
import mlx.core as mx
def state():
    return [dict(os.environ), resource.getrlimit(resource.RLIMIT_NOFILE), signal.getsignal(signal.SIGINT) is
            signal.default_int_handler, threading.active_count(), mx.random.state[0].tolist(), os.getcwd()]
before = state()
import mlx_smolvlm
for name in mlx_smolvlm.__all__:
    getattr(mlx_smolvlm, name)
heavy = {"torch", "transformers", "mlx_lm", "av", "jinja2", "num2words", "huggingface_hub", "requests"}
heavy |= {"llguidance", "matplotlib"}
print(json.dumps([before == state(), sorted(heavy & set(sys.modules))]))
"""
        )
    )
    assert report == [True, []]


IMPORT_EVERYTHING = """
import json, sys, time
start = time.process_time()
import mlx.core, mlx.nn, numpy, PIL.Image, tokenizers, safetensors
middle, libraries = time.process_time(), set(sys.modules)
import mlx_smolvlm
for name in mlx_smolvlm.__all__:
    getattr(mlx_smolvlm, name)
own = sorted(set(sys.modules) - libraries)
print(json.dumps([middle - start, time.process_time() - middle, len(libraries), own]))
"""


def test_importing_everything_brings_little_besides_its_libraries():
    """Counted, not timed: seconds depend on the machine, and on whether compiled files are kept."""
    *_, num_of_libraries, own = json.loads(run_python(IMPORT_EVERYTHING))
    rooms = {name.split(".")[0] for name in own}
    assert rooms - sys.stdlib_module_names <= {"mlx_smolvlm", "PIL", "safetensors"}
    assert not rooms & {"asyncio", "email", "http", "multiprocessing", "ssl", "subprocess", "unittest", "xml"}
    assert len(own) < num_of_libraries


@pytest.mark.slow
def test_importing_everything_costs_less_than_twice_its_libraries():
    """In processor time, libraries first, in one process; the least of five, with compiled files kept."""
    found = (json.loads(run_python(IMPORT_EVERYTHING, PYTHONDONTWRITEBYTECODE="")) for _ in range(5))
    libraries_s, own_s = (min(times) for times in list(zip(*found, strict=True))[:2])
    assert own_s < libraries_s


def test_files_can_be_read_in_one_sitting():
    """At most 300 lines, unless docs/design.md says why: "- `path/to/file.py` is long: ..."."""
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    excused = re.findall(r"^- `(\S+)` is long: ", design, re.MULTILINE)
    folders = (PACKAGE, ROOT / "examples", ROOT / "tests")
    lengths = {path: path.read_text(encoding="utf-8").count("\n") for top in folders for _, path in modules_of(top)}
    long = {path.relative_to(ROOT).as_posix() for path, length in lengths.items() if length > 300}
    assert long == set(excused)
