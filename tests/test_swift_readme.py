"""The README's Swift program prints the answer, once the package is built (`.ci/swift` does that)."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BUILT = ROOT / "examples" / "swift" / ".build" / "debug"
PROGRAMS = re.findall(r"^```swift\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)


def test_the_program_is_short():
    assert [len(program.splitlines()) <= 15 for program in PROGRAMS] == [True]


@pytest.mark.skipif(
    shutil.which("swiftc") is None or not (BUILT / "Modules").is_dir(), reason="the Swift package is not built"
)
def test_the_program_prints_the_answer(tmp_path):
    (tmp_path / "main.swift").write_text(PROGRAMS[0], encoding="utf-8")
    objects = [str(file) for folder in ("SmolVLM", "CPythonRuntime") for file in BUILT.glob(f"{folder}.build/*.o")]
    module_map = ROOT / "examples" / "swift" / "Sources" / "CPythonRuntime" / "include"
    command = ["swiftc", "-swift-version", "6", "-I", str(BUILT / "Modules"), "-I", str(module_map), *objects]
    command += ["-Xcc", f"-fmodule-map-file={BUILT / 'CPythonRuntime.build' / 'module.modulemap'}"]
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    subprocess.run([*command, "main.swift", "-o", "program"], cwd=tmp_path, env=environment, check=True, timeout=200)
    python = tmp_path / "python"  # with the package of this checkout: without -I, which would pass over PYTHONPATH
    python.write_text(f'#!/bin/sh\nshift\nPYTHONPATH="{ROOT}" exec "{sys.executable}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    variables = {**os.environ, "MLX_SMOLVLM_PYTHON": str(python)}
    done = subprocess.run(
        [str(tmp_path / "program")], cwd=ROOT, env=variables, capture_output=True, text=True, timeout=100
    )
    assert (done.returncode, done.stdout) == (0, "Red.\n"), done.stderr
